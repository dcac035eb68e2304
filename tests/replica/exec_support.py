"""Small canisters in Wasm text, and a driver that sends them messages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import wasmtime

from icgpt.replica import wasm, weights
from icgpt.replica.execution import Canister
from icgpt.replica.ic0 import SIGNATURES
from icgpt.replica.messages import Environment, Kind, Message, Outcome

CANISTER = bytes(8) + b"\1\1"
CALLER = b"\x09" * 10
ENVIRONMENT = Environment(
    canister_id=CANISTER,
    time=1_700_000_000_000_000_000,
    balance=10**13,
    controllers=(CALLER,),
    version=7,
    subnet_id=b"\5" * 29,
    root_key=b"\6" * 133,
    variables=(("COLOUR", "blau"), ("SIZE", "12")),
)


def wat(body: str, *imports: str, memory: str = '(memory (export "memory") 1)') -> bytes:
    """A module of `body` with some system calls imported, as `$name`."""
    lines = []
    for name in imports:
        kind = SIGNATURES[name].type
        params = " ".join("i32" if t == 0x7F else "i64" for t in kind.params)
        results = " ".join("i32" if t == 0x7F else "i64" for t in kind.results)
        lines.append(f'(import "ic0" "{name}" (func ${name} (param {params}) (result {results})))')
    text = "(module " + "\n".join(lines) + memory + body + ")"
    return bytes(wasmtime.wat2wasm(text))


class Driver:
    """A canister in a folder, and short ways to run messages on it."""

    def __init__(self, folder: Path, release: weights.Release = weights.WITHOUT_PAGES) -> None:
        self.folder = folder
        self.release = release
        self.canister = Canister(folder, release)

    def install(self, module: bytes, arg: bytes = b"", mode: str = "install") -> Outcome:
        return self.canister.install(module, arg, CALLER, ENVIRONMENT, mode)  # type: ignore[arg-type]

    def run(self, kind: Kind, **fields: Any) -> Outcome:
        message = Message(kind, ENVIRONMENT, caller=CALLER)
        return self.canister.execute(replace(message, **fields))

    def update(self, method: str, arg: bytes = b"", **fields: Any) -> Outcome:
        return self.run(Kind.UPDATE, method=method, arg=arg, **fields)

    def query(self, method: str, arg: bytes = b"", **fields: Any) -> Outcome:
        fields.setdefault("replicated", False)
        return self.run(Kind.QUERY, method=method, arg=arg, **fields)

    def number(self, method: str, **fields: Any) -> int:
        """The reply of a query as a little-endian number."""
        outcome = self.query(method, **fields)
        assert outcome.trap is None, outcome.trap
        assert outcome.reply is not None
        return int.from_bytes(outcome.reply, "little")

    def reopen(self) -> None:
        """Close and open again, as a restart does."""
        self.canister.close()
        self.canister = Canister(self.folder, self.release)


def one_function(body: bytes) -> bytes:
    """A module with one function, whose body may be no valid code."""
    return wasm.HEADER + b"".join(
        wasm.section(kind, content)
        for kind, content in (
            (wasm.TYPE, b"\x01\x60\0\0"),
            (wasm.FUNCTION, b"\x01\0"),
            (wasm.CODE, b"\x01" + wasm.leb(len(body)) + body),
        )
    )


def trap_text(outcome: Outcome) -> str:
    """The text of a trap; fails if there is none."""
    assert outcome.trap is not None, outcome
    return f"{outcome.trap.error_code} {outcome.trap.message}"

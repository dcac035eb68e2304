"""The built canister alone, without a network: messages go straight to the execution.

So a count depends on nothing but the module, the model and the request. What the canister sends to
itself, to go on in a further message, is delivered at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icgpt import candid
from icgpt.interface import METHODS
from icgpt.replica import weights
from icgpt.replica.execution import Canister
from icgpt.replica.messages import Environment, Kind, Message, Outcome
from icgpt.replica.stable import StableMemory

OWNER = b"\x07" * 29
SELF = bytes(8) + b"\1\1"
ENVIRONMENT = Environment(
    canister_id=SELF,
    time=1_700_000_000_000_000_000,
    balance=10**18,
    controllers=(OWNER,),
    version=1,
    subnet_id=b"\5" * 29,
)
NO_ARGUMENT = b"DIDL\0\0"
MANAGEMENT = b""
RANDOM = candid.encode([candid.BLOB], [b"\x2a" * 32])  # what `raw_rand` answers here
CHUNK = 1_900_000


class RefusedError(Exception):
    """The canister trapped, rejected or answered with an error."""


@dataclass(frozen=True)
class Spent:
    """What a request took, with all that followed from it."""

    instructions: int  # of code and system calls
    pages: int  # for touched pages of memory, on top
    messages: int  # with anything to do but to be a message

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.instructions + other.instructions,
            self.pages + other.pages,
            self.messages + other.messages,
        )


class LoneCanister:
    """A canister in a folder, and typed calls of its methods."""

    def __init__(self, folder: Path, wasm: bytes) -> None:
        self._canister = Canister(folder, weights.CURRENT)
        self._wasm = wasm
        self._environment = ENVIRONMENT
        self._timer = 0
        self._install("install")

    def _install(self, mode: Any) -> Spent:
        outcome = self._canister.install(self._wasm, NO_ARGUMENT, OWNER, self._environment, mode)
        if outcome.timer is not None:
            self._timer = outcome.timer
        return _spent(outcome)

    @property
    def stable(self) -> StableMemory:
        """Its stable memory, to be looked at and changed between two messages."""
        return self._canister._stable

    def upgrade(self) -> Spent:
        """Upgrade to the same module: what `pre_upgrade` and `post_upgrade` take."""
        return self._install("upgrade")

    def query(self, method: str, *arguments: Any) -> tuple[Any, Spent]:
        """Call a query method; gives its result and what it took."""
        outcome = self._execute(Kind.QUERY, method, self._encode(method, arguments), OWNER)
        return self._decode(method, outcome.reply or b""), _spent(outcome)

    def update(self, method: str, *arguments: Any) -> tuple[Any, Spent]:
        """Call an update method; gives its result and what it took."""
        outcome = self._execute(Kind.UPDATE, method, self._encode(method, arguments), OWNER)
        reply, spent = self._follow(method, outcome)
        if reply is None:
            raise RefusedError(f"{method} did not answer")
        return self._decode(method, reply), spent

    def run_timer(self) -> Spent:
        """Deliver the timer for as long as it is due at once; gives what all of it took."""
        total = Spent(0, 0, 0)
        while 0 < self._timer <= self._environment.time:
            self._timer = 0
            total = total + self._follow("timer", self._execute(Kind.TIMER, "", b"", b""))[1]
        return total

    def _follow(self, method: str, outcome: Outcome) -> tuple[bytes | None, Spent]:
        """Deliver the calls that a message made, and those that follow from them."""
        total, reply = _spent(outcome), outcome.reply
        waiting = list(outcome.calls)
        while waiting:
            call = waiting.pop(0)
            if call.callee == MANAGEMENT and call.method == "raw_rand":
                answer, hop = RANDOM, Spent(0, 0, 0)
            elif call.callee == SELF:
                inner = self._execute(Kind.UPDATE, call.method, call.arg, SELF)
                answer, hop = inner.reply or b"", _spent(inner)
            else:
                raise RefusedError(f"{method} calls {call.method} of another canister")
            message = Message(
                Kind.REPLY_CALLBACK,
                self._environment,
                arg=answer,
                caller=OWNER,
                callback=call.on_reply,
                answered=reply is not None,
                context_instructions=total.instructions + total.pages,
            )
            outcome = self._done(self._canister.execute(message), method)
            total = total + _spent(outcome) + Spent(hop.instructions, hop.pages, 0)
            reply = outcome.reply if outcome.reply is not None else reply
            waiting += outcome.calls
        return reply, total

    def _execute(self, kind: Kind, method: str, argument: bytes, caller: bytes) -> Outcome:
        message = Message(
            kind,
            self._environment,
            method=method,
            arg=argument,
            caller=caller,
            replicated=kind is not Kind.QUERY,
        )
        return self._done(self._canister.execute(message), method)

    def _done(self, outcome: Outcome, method: str) -> Outcome:
        """Refuse what failed; keep the timer that a message has set."""
        refusal = outcome.trap or outcome.reject
        if refusal is not None:
            raise RefusedError(f"{method}: {refusal.message}")
        if outcome.timer is not None:
            self._timer = outcome.timer
        return outcome

    @staticmethod
    def _encode(method: str, arguments: tuple[Any, ...]) -> bytes:
        return candid.encode(list(METHODS[method].arguments), list(arguments))

    @staticmethod
    def _decode(method: str, reply: bytes) -> Any:
        results = candid.decode(reply, list(METHODS[method].results))
        result = results[0] if results else None
        if isinstance(result, dict) and "Err" in result:
            raise RefusedError(f"{method}: {result['Err']}")
        return result["Ok"] if isinstance(result, dict) and set(result) == {"Ok"} else result

    def upload(self, folder: Path) -> Spent:
        """Upload a model's configuration and weights; gives what it took."""
        config = (folder / "config.json").read_bytes()
        spent = self.update("append_config_bytes", config)[1]
        for chunk in _chunks(folder / "model.safetensors"):
            spent = spent + self.update("append_safetensors_bytes", chunk)[1]
        for method in ("store_safetensors_bytes_to_stable", "load_safetensors_bytes_from_stable"):
            spent = spent + self.update(method)[1]
        return spent

    def set_up(self, precision: str) -> Spent:
        """Make the uploaded model answer, held in this precision."""
        self.update("set_precision", precision)
        return self.update("setup_model")[1]

    def close(self) -> None:
        """Let go of memory and files."""
        self._canister.close()


def _spent(outcome: Outcome) -> Spent:
    if outcome.trap is not None:
        raise RefusedError(outcome.trap.message)
    pages = outcome.page_instructions
    return Spent(outcome.instructions - pages, pages, 1)


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk

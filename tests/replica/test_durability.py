"""A process that ends at any write: what was let in runs once, and is answered once."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from replica_kit import number, wasm

from icgpt.candid import encode
from icgpt.principal import MANAGEMENT
from icgpt.replica import management_types as types
from icgpt.replica.folder import Folder
from icgpt.replica.ingress import Request
from icgpt.replica.journal import Journal
from icgpt.replica.log import Log
from icgpt.replica.management import canister_id
from icgpt.replica.messages import Kind
from icgpt.replica.subnet import Subnet

KILLED = 77  # an exit code
USER = b"\x09" * 29
FIRST, SECOND = canister_id(0), canister_id(1)
CREATE = "provisional_create_canister_with_cycles"


def request(name: str, canister: bytes, method: str, arg: bytes = b"") -> Request:
    return Request(name.encode().ljust(32, b"-"), "call", USER, 1 << 62, canister, method, arg)


def management(name: str, method: str, kind: Any, value: Any) -> Request:
    return request(name, MANAGEMENT, method, encode([kind], [value]))


def setup_requests() -> list[tuple[Request, bytes]]:
    out = []
    for index, canister in enumerate((FIRST, SECOND)):
        create = management(f"create {index}", CREATE, types.PROVISIONAL_CREATE, {})
        install = management(
            f"install {index}",
            "install_code",
            types.INSTALL,
            {"mode": {"install": None}, "canister_id": canister, "wasm_module": wasm(), "arg": b""},
        )
        out += [(create, MANAGEMENT), (install, canister)]
    return out


def proxied(method: str, by: str = "proxy") -> Request:
    name = method.encode()
    arg = bytes([len(SECOND)]) + SECOND + bytes([len(name)]) + name + struct.pack("<Q", 7)
    return request(f"{by} {method}", FIRST, by, arg)


WORK = [
    (request("inc", SECOND, "inc"), SECOND),
    (proxied("inc"), FIRST),
    (proxied("boom"), FIRST),
    (proxied("inc", by="proxy_trap"), FIRST),
]


class Clumsy:
    """Ends the process before or after the n-th write to disk."""

    def __init__(self, at: int) -> None:
        self.left = at
        for owner, name in ((Log, "_write"), (Journal, "write"), (Folder, "finish")):
            setattr(owner, name, self.wrap(getattr(owner, name)))

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            self.tick()
            result = real(*arguments)
            self.tick()
            return result

        return wrapped

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(KILLED)


def drive(subnet: Subnet, requests: list[tuple[Request, bytes]]) -> None:
    """Send each message and run until it is answered, as the worker does."""
    for item, payer in requests:
        subnet.submit(item, payer)
        while True:
            entry = subnet.history.get(item.id)
            assert entry is not None
            if entry.status in ("replied", "rejected"):
                break
            subnet._turn()


def let_go(subnet: Subnet) -> None:
    subnet._lock_file.close()


def open_subnet(folder: Path) -> Subnet:
    return Subnet(folder, lambda _: None)


def ask(subnet: Subnet, canister: bytes, method: str) -> int:
    future = subnet.ask(Kind.QUERY, Request(b"q" * 32, "query", USER, 1 << 62, canister, method))
    return number(future.result(timeout=60).reply)


def outcomes(subnet: Subnet) -> list[tuple[str, bytes, str]]:
    out = []
    for item, _ in WORK:
        entry = subnet.history.get(item.id)
        assert entry is not None
        out.append((entry.status, entry.reply, entry.reject.error_code if entry.reject else ""))
    return out


def numbers(subnet: Subnet) -> list[int]:
    return [ask(subnet, c, m) for c in (FIRST, SECOND) for m in ("get", "cleaned")]


def test_a_kill_at_any_write_changes_nothing(tmp_path: Path) -> None:
    plain = open_subnet(tmp_path / "plain")
    drive(plain, setup_requests() + WORK)
    expected, counted = outcomes(plain), numbers(plain)
    assert counted == [0, 1, 3, 0]
    plain.stop()
    killed = 0
    for at in range(1, 200):
        folder = tmp_path / str(at)
        child = os.fork()
        if child == 0:
            subnet = open_subnet(folder)
            Clumsy(at)
            drive(subnet, setup_requests() + WORK)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            break
        assert status == KILLED
        killed += 1
        subnet = open_subnet(folder)
        # The client that got no answer sends the same message again, and so on.
        drive(subnet, setup_requests() + WORK)
        assert outcomes(subnet) == expected, at
        assert numbers(subnet) == counted, at
        let_go(subnet)
    assert killed > 50


def test_what_was_answered_is_known_after_a_kill(tmp_path: Path) -> None:
    subnet = open_subnet(tmp_path)
    drive(subnet, setup_requests() + WORK)
    expected, tree = outcomes(subnet), subnet.history.tree().digest
    let_go(subnet)
    for _ in range(2):
        subnet = open_subnet(tmp_path)
        assert outcomes(subnet) == expected
        assert subnet.history.tree().digest == tree
        for item, payer in WORK:
            subnet.submit(item, payer)
        assert subnet._inbox.empty()
        let_go(subnet)


def test_messages_that_wait_survive_a_kill(tmp_path: Path) -> None:
    subnet = open_subnet(tmp_path)
    drive(subnet, setup_requests())
    for item, payer in WORK:
        subnet.submit(item, payer)
    let_go(subnet)
    subnet = open_subnet(tmp_path)
    assert [task.origin.request_id for task in subnet.router.queue] == [i.id for i, _ in WORK]
    while subnet.history.pending:
        subnet._turn()
    assert numbers(subnet) == [0, 1, 3, 0]
    subnet.stop()


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icgpt.replica.subnet.KEPT", 1 << 16)
    subnet = open_subnet(tmp_path)
    drive(subnet, setup_requests())
    for index in range(100):
        drive(subnet, [(request(f"size {index}", FIRST, "size", bytes(10_000)), FIRST)])
        assert (tmp_path / "subnet.log").stat().st_size < 100_000
    let_go(subnet)
    subnet = open_subnet(tmp_path)
    assert subnet.history.pending == 0
    assert len(subnet.history.entries()) == 104
    subnet.stop()


def test_half_a_step_is_cut_off(tmp_path: Path) -> None:
    subnet = open_subnet(tmp_path)
    drive(subnet, setup_requests() + WORK[:1])
    let_go(subnet)
    log = tmp_path / "subnet.log"
    whole = log.read_bytes()
    for cut in (1, 7, 9, len(whole) // 2):
        log.write_bytes(whole[:-cut])
        subnet = open_subnet(tmp_path)
        drive(subnet, setup_requests() + WORK[:1])
        assert ask(subnet, SECOND, "get") == 1
        let_go(subnet)


def test_waiting_for_the_disk_works_too(tmp_path: Path) -> None:
    subnet = Subnet(tmp_path, lambda _: None, sync=True)
    drive(subnet, setup_requests() + WORK)
    assert numbers(subnet) == [0, 1, 3, 0]
    subnet.stop()

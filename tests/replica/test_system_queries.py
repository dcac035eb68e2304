"""Queries of the management canister and the ledgers don't wait for a canister's code."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exec_support import wat

from icgpt.candid import decode, encode
from icgpt.principal import MANAGEMENT
from icgpt.replica import fees
from icgpt.replica import management_types as types
from icgpt.replica.ingress import Request
from icgpt.replica.messages import Kind, Message, Outcome
from icgpt.replica.native import icp_ledger
from icgpt.replica.querying import Answer
from icgpt.replica.subnet import Subnet

SENDER = b"\x07" * 10
SECONDS = 60  # for what takes no time
CODE = """
  (func (export "canister_update grow")
    (drop (call $stable64_grow (i64.const 3))) (call $msg_reply))"""


class Fixture:
    """A subnet in this process, and the ways to send it messages without HTTP."""

    def __init__(self, folder: Path) -> None:
        self.finished = threading.Condition()
        self.answered: set[bytes] = set()
        self.subnet = Subnet(folder, self._announce)
        self.subnet.start()
        self.count = 0

    def _announce(self, requests: list[bytes]) -> None:
        with self.finished:
            self.answered.update(requests)
            self.finished.notify_all()

    def request(self, canister: bytes, method: str, arg: bytes) -> Request:
        self.count += 1
        expiry = time.time_ns() + 10**11
        number = self.count.to_bytes(32, "big")
        return Request(number, "call", SENDER, expiry, canister, method, arg, (), None)

    def send(self, canister: bytes, method: str, arg: bytes = b"") -> bytes:
        request = self.request(canister, method, arg)
        self.subnet.submit(request, self.subnet.check(request))
        return request.id

    def reply(self, request: bytes) -> bytes:
        with self.finished:
            assert self.finished.wait_for(lambda: request in self.answered, SECONDS)
        entry = self.subnet.history.get(request)
        assert entry is not None
        assert entry.reject is None, entry.reject
        return entry.reply

    def manage(self, method: str, kind: Any, value: dict[str, Any]) -> bytes:
        return self.reply(self.send(MANAGEMENT, method, encode([kind], [value])))

    def query(self, canister: bytes, method: str, arg: bytes) -> Answer:
        return self.subnet.ask(Kind.QUERY, self.request(canister, method, arg)).result(SECONDS)

    def status(self, canister: bytes) -> Any:
        arg = encode([types.CANISTER], [{"canister_id": canister}])
        answer = self.query(MANAGEMENT, "canister_status", arg)
        assert answer.reject is None, answer.reject
        return decode(answer.reply, [types.STATUS])[0]


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[Fixture]:
    fixture = Fixture(tmp_path / "network")
    yield fixture
    fixture.subnet.stop()


def test_they_are_answered_while_an_update_runs(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fixture.manage(
        "provisional_create_canister_with_cycles",
        types.PROVISIONAL_CREATE,
        dict.fromkeys(("amount", "settings", "specified_id", "sender_canister_version")),
    )
    canister = decode(made, [types.CANISTER])[0]["canister_id"]
    code = wat(CODE, "stable64_grow", "msg_reply")
    install = {"mode": {"install": None}, "canister_id": canister, "wasm_module": code, "arg": b""}
    fixture.manage("install_code", types.INSTALL, {**install, "sender_canister_version": None})
    before = fixture.status(canister)
    running, go_on = threading.Event(), threading.Event()
    hosted = fixture.subnet.router.hosted[canister]
    execute = hosted.code.execute

    def slow(message: Message, seal: Any = None) -> Outcome:
        def wait(outcome: Outcome) -> bytes:
            running.set()  # the code has run, and nothing is committed so far
            assert go_on.wait(SECONDS)
            return bytes(seal(outcome))

        return execute(message, wait)

    monkeypatch.setattr(hosted.code, "execute", slow)
    request = fixture.send(canister, "grow")
    try:
        assert running.wait(SECONDS)
        during = fixture.status(canister)
        balance = icp_ledger.ID, "symbol", b"DIDL\0\0"
        assert fixture.query(*balance).reject is None
        unknown = fixture.query(MANAGEMENT, "raw_rand", b"DIDL\0\0").reject
        assert unknown is not None
        assert unknown.error_code == "IC0536"
        assert request not in fixture.answered
    finally:
        go_on.set()
    fixture.reply(request)
    # Nothing of the message was to be seen: neither what it wrote nor what is held back for it.
    for shown in (before, during):
        assert shown["memory_metrics"]["stable_memory_size"] == 0
    assert 0 <= before["cycles"] - during["cycles"] < fees.PREPAID // 100
    after = fixture.status(canister)
    assert after["memory_metrics"]["stable_memory_size"] == 3 << 16
    assert fees.MESSAGE <= during["cycles"] - after["cycles"] < fees.PREPAID // 100

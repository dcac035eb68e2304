"""The same messages on two fresh networks: the same instructions, replies and memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from test_durability import FIRST, WORK, drive, let_go, management, open_subnet, request
from test_durability import setup_requests as two_canisters

from icgpt.candid import BLOB, encode
from icgpt.principal import MANAGEMENT
from icgpt.replica import management_types as types
from icgpt.replica.management import canister_id
from icgpt.replica.records import MessageRecord
from icgpt.replica.routing import Router

THIRD = canister_id(2)


def run(folder: Path, wasm: bytes, patch: pytest.MonkeyPatch) -> list[object]:
    clock = itertools.count(1_700_000_000_000_000_000, 1_000_000)
    patch.setattr(Router, "now", lambda _: next(clock))
    patch.setattr("icgpt.replica.management.secrets.token_bytes", bytes)
    folder.mkdir()
    (folder / "secret").write_bytes(bytes(32))
    subnet = open_subnet(folder)
    install = {"mode": {"install": None}, "canister_id": THIRD, "wasm_module": wasm, "arg": b""}
    create = "provisional_create_canister_with_cycles"
    requests = [
        *two_canisters(),
        *WORK,
        (management("create", create, types.PROVISIONAL_CREATE, {}), MANAGEMENT),
        (management("install", "install_code", types.INSTALL, install), THIRD),
    ]
    for index, data in enumerate((b"{", b'"n_layer": 1', b"}", bytes(300_000))):
        arg = encode([BLOB], [data])
        requests.append((request(f"bytes {index}", THIRD, "append_config_bytes", arg), THIRD))
        requests.append((request(f"set-up {index}", THIRD, "setup_tokenizer", b"DIDL\0\0"), THIRD))
    requests.append((request("trap", FIRST, "boom"), FIRST))
    subnet._next_charge = subnet._next_heartbeat = 1e9
    drive(subnet, requests)

    def told(record: MessageRecord) -> tuple[object, ...]:
        entry = subnet.history.get(record.request_id)
        assert entry is not None
        counts = (record.instructions, record.page_instructions, record.messages)
        return record.method, record.status, *counts, entry.reply, entry.reject

    out: list[object] = [told(record) for record in subnet.messages(1_000)]
    out += [hosted.code.digest() for hosted in subnet.router.hosted.values()]
    out += [(h.record.cycles, h.record.version) for h in subnet.router.hosted.values()]
    subnet.stop()
    return out


def test_two_fresh_runs_are_equal(
    tmp_path: Path, wasm: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (run(tmp_path / name, wasm, monkeypatch) for name in ("one", "two"))
    assert first == second
    assert len(set(map(str, first))) > 10


def test_the_digest_of_memory_tells_one_byte(tmp_path: Path) -> None:
    digests = []
    for index, count in enumerate((1, 1, 2)):
        subnet = open_subnet(tmp_path / str(index))
        drive(subnet, two_canisters())
        for number in range(count):
            drive(subnet, [(request(f"inc {number}", FIRST, "inc"), FIRST)])
        digests.append(subnet.router.hosted[FIRST].code.digest())
        let_go(subnet)
    assert digests[0] == digests[1] != digests[2]

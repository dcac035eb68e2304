"""Processes: start, stop, restart, reset, and what survives them."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from replica_kit import Raw, hash_of, number

from icgpt import network
from icgpt.principal import from_text, to_text
from icgpt.replica import management_types as types
from icgpt.replica.messages import Callback, Reject
from icgpt.replica.records import (
    CallContext,
    CanisterRecord,
    Everything,
    Origin,
    PendingCall,
    Settings,
    Task,
)
from icgpt.replica.state import StateError, Store, _seal, unpack


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    network.stop(tmp_path / "state")


def client(info: network.NetworkInfo) -> Raw:
    return Raw(info.url, info.root_key)


def test_a_restart_keeps_everything(folder: Path) -> None:
    info = network.start(folder, port=0)
    raw = client(info)
    canister = raw.new()
    for _ in range(3):
        raw.update(canister, "inc")
    raw.update(canister, "certify", b"certified")
    raw.update(canister, "print", b"logged")
    settings = {"canister_id": canister, "settings": {"freezing_threshold": 77}}
    raw.managed("update_settings", types.UPDATE_SETTINGS, settings, canister)
    chunk = {"canister_id": canister, "chunk": b"a chunk"}
    raw.managed("upload_chunk", types.UPLOAD_CHUNK, chunk, canister)
    content = raw.call_content(canister, "inc")
    path = f"v3/canister/{to_text(canister)}/call"
    raw.post(path, raw.envelope(content))
    before = raw.status(canister)
    messages = raw.http.get(f"{raw.url}/_/messages").json()
    assert network.stop(folder)
    assert not (folder / "network.json").exists()
    again = network.start(folder, port=info.port)
    assert (again.root_key, again.port) == (info.root_key, info.port)
    raw = client(again)
    assert number(raw.query(canister, "get")) == 4
    after = raw.status(canister)
    for key in ("settings", "module_hash", "memory_size"):
        assert after[key] == before[key]
    assert after["memory_metrics"]["wasm_chunk_store_size"] == len(b"a chunk")
    assert after["cycles"] == pytest.approx(before["cycles"], rel=1e-4)
    # What was answered before is still known, and does not run again.
    raw.post(path, raw.envelope(content))
    assert raw.poll(canister, hash_of(content)) == ("replied", b"\x04\x00\x00\x00")
    assert number(raw.query(canister, "get")) == 4
    later = raw.http.get(f"{raw.url}/_/messages").json()
    assert [m["request_id"] for m in messages] == [m["request_id"] for m in later][: len(messages)]
    # New canisters don't take old ids.
    assert raw.create() != canister


def test_work_that_was_cut_off_goes_on(folder: Path) -> None:
    raw = client(network.start(folder, port=0))
    canister = raw.new()
    raw.update(canister, "timer", struct.pack("<Q", 3 * 10**8))
    content = raw.call_content(canister, "chain", struct.pack("<I", 2_000))
    raw.post(f"v2/canister/{to_text(canister)}/call", raw.envelope(content))
    network.stop(folder)
    raw = client(network.start(folder, port=0))
    assert raw.poll(canister, hash_of(content)) == ("replied", b"done")
    end = time.monotonic() + 20
    while number(raw.query(canister, "get")) < 2_002:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert number(raw.query(canister, "get")) == 2_002


def test_a_killed_process_leaves_a_usable_folder(folder: Path) -> None:
    info = network.start(folder, port=0)
    raw = client(info)
    canister = raw.new()
    assert number(raw.update(canister, "inc")) == 1
    os.kill(info.pid, signal.SIGKILL)
    while (folder / "network.json").exists():
        assert network.status(folder) in (None, info)
        time.sleep(0.02)
    assert not network.stop(folder)
    raw = client(network.start(folder, port=0))
    assert number(raw.query(canister, "get")) == 1
    assert number(raw.update(canister, "inc")) == 2


def test_status_and_files(folder: Path) -> None:
    assert network.status(folder) is None
    assert network.stop(folder) is False
    info = network.start(folder, port=0)
    assert network.status(folder) == info
    document = json.loads((folder / "network.json").read_text())
    assert document["v"] == 1
    assert document["url"] == info.url == f"http://127.0.0.1:{info.port}"
    assert bytes.fromhex(document["root_key"]) == info.root_key
    assert from_text(info.default_effective_canister_id) == client(info).create()
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pytest.raises(network.AlreadyRunningError, match="runs at"):
        network.start(folder, port=0)


def test_a_file_that_speaks_of_another_process_is_not_believed(folder: Path) -> None:
    info = network.start(folder, port=0)
    document = json.loads((folder / "network.json").read_text())
    network.stop(folder)
    # As if the process had died and its id been given to another: this one.
    document["pid"] = os.getpid()
    (folder / "network.json").write_text(json.dumps(document))
    assert network.stop(folder) is False
    assert not (folder / "network.json").exists()
    (folder / "network.json").write_text("{junk")
    assert network.status(folder) is None
    again = network.start(folder, port=0)
    assert again.root_key == info.root_key


def test_taken_ports(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(network.PortInUseError, match=f"port {port}"):
            network.start(folder, port=port)
        monkeypatch.setattr(network, "DEFAULT_PORT", port)
        info = network.start(folder)
        assert info.port not in (0, port)


def test_reset_forgets_everything(folder: Path) -> None:
    info = network.start(folder, port=0)
    canister = client(info).new()
    keep = folder / "mine.txt"
    keep.write_text("not the network's")
    network.reset(folder)
    assert network.status(folder) is None
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    again = network.start(folder, port=0)
    assert again.root_key != info.root_key
    assert client(again).call(canister, "inc")[1][2] == "IC0301"


def test_damaged_state_is_refused_with_advice(folder: Path) -> None:
    network.start(folder, port=0)
    network.stop(folder)
    for name in ("subnet.0", "subnet.1"):
        (folder / name).write_bytes(b"junk")
    with pytest.raises(network.LocalNetworkError, match="icgpt network reset"):
        network.start(folder, port=0)


def test_the_state_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ICGPT_STATE_DIR", str(tmp_path))
    assert network.default_state_dir() == tmp_path
    monkeypatch.delenv("ICGPT_STATE_DIR")
    assert network.default_state_dir().parts[-2:] == ("icgpt", "network")


def test_state_files(tmp_path: Path) -> None:
    record = CanisterRecord(b"\x01", Settings(controllers=(b"\x04",)), 2**100)
    record.contexts[5] = CallContext(5, Origin(b"r" * 32), b"\x04", 7)
    record.calls[6] = PendingCall(5, Callback(1, 2), Callback(3, 4), Callback(5, 6))
    record.calls[7] = PendingCall(5, Callback(1, 2), Callback(3, 4))
    record.add_log([(1, b"line")])
    task = Task("response", b"\x01", Origin(canister=b"\x02", callback=3), reject=Reject(5, "no"))
    everything = Everything(0, 1, 2, [record], [task])
    store = Store(tmp_path / "state")
    assert store.load(Everything) is None
    store.save(everything)
    store.close()
    assert Store(tmp_path / "state").load(Everything) == everything
    last = b"\xa2gversion\x02estate\xa0"
    wrong = (b"\xa2gversion\x03estate\x05", b"\xa2gversion\x03estate\xa1dnone\x05")
    for junk in (b"\xa0", b"\x81\x01", last, *wrong):
        (tmp_path / "state.0").write_bytes(_seal(9, junk))
        with pytest.raises(StateError, match="icgpt network reset"):
            Store(tmp_path / "state").load(Everything)
    for junk in (b"", b"\x81\x01", b"\x05", b"\xa1dnone\x05"):
        with pytest.raises(StateError, match="icgpt network reset"):
            unpack(junk, Everything)


def test_the_newer_whole_state_counts(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    assert store.load(Everything) is None
    for number_ in range(1, 5):
        store.save(Everything(next_canister=number_, queue=[Task("timer", bytes(5 - number_))]))
    store.close()
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["state.0", "state.1"]
    found = Store(tmp_path / "state").load(Everything)
    assert found is not None
    assert found.next_canister == 4
    # The newest is torn: the one before counts, and the next save goes over the torn one.
    files[0].write_bytes(files[0].read_bytes()[:60])
    store = Store(tmp_path / "state")
    found = store.load(Everything)
    assert found is not None
    assert found.next_canister == 3
    store.save(Everything(next_canister=9))
    store.close()
    found = Store(tmp_path / "state").load(Everything)
    assert found is not None
    assert found.next_canister == 9
    for path in files:
        path.write_bytes(b"torn")
    with pytest.raises(StateError, match="damaged"):
        Store(tmp_path / "state").load(Everything)

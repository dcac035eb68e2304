"""A folder that a killed process, or one of another version, has left: gone on with, or refused."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest
from replica_kit import Raw, wasm

from icgpt.candid import unsigned_leb128
from icgpt.principal import to_text
from icgpt.replica import management_types as types
from icgpt.replica.__main__ import main as replica_main
from icgpt.replica.ingress import Request
from icgpt.replica.log import Log
from icgpt.replica.management import Caller, Management, canister_id
from icgpt.replica.messages import Kind
from icgpt.replica.records import CanisterRecord, Origin, Settings
from icgpt.replica.state import StateError, Store
from icgpt.replica.subnet import Subnet

CONTROLLER = b"\x09" * 29
CANISTER = canister_id(0)


def open_subnet(folder: Path) -> Subnet:
    return Subnet(folder, lambda _: None)


def caller() -> Caller:
    return Caller(CONTROLLER, Origin(), 0, b"")


def create(management: Management) -> bytes:
    return management.add(CONTROLLER, None, 10**14, None)


def install(management: Management, canister: bytes) -> None:
    argument = {"canister_id": canister, "mode": {"install": None}, "wasm_module": wasm()}
    with management.router.lock:  # as the worker does
        management.install(caller(), argument | {"arg": b"", "sender_canister_version": None})


def kill(subnet: Subnet) -> None:
    """Let go of the folder without writing anything that is not written yet."""
    subnet._lock_file.close()


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """The folder of a network that has ended in good order, with one canister."""
    subnet = open_subnet(tmp_path)
    assert create(subnet.management) == CANISTER
    install(subnet.management, CANISTER)
    subnet.stop()
    return tmp_path


def test_a_canister_that_was_never_written_down_leaves_no_code(tmp_path: Path) -> None:
    subnet = open_subnet(tmp_path)
    create(subnet.management)
    install(subnet.management, CANISTER)
    kill(subnet)
    subnet = open_subnet(tmp_path)
    assert subnet.router.hosted == {}
    assert create(subnet.management) == CANISTER
    assert not subnet.router.hosted[CANISTER].code.installed
    subnet.stop()


def test_a_deletion_that_was_never_written_down_has_not_been(filled: Path) -> None:
    subnet = open_subnet(filled)
    argument = {"canister_id": CANISTER}
    chunk = {"canister_id": CANISTER, "chunk": b"a piece"}
    subnet.management.upload_chunk(caller(), chunk)
    subnet.management.stop(caller(), argument)
    subnet.save()
    subnet.management.delete(caller(), argument)
    kill(subnet)
    subnet = open_subnet(filled)
    record = subnet.router.hosted[CANISTER].record
    assert subnet.router.hosted[CANISTER].code.installed
    assert record.chunks == {}  # their files have gone, so they can be uploaded again
    subnet.management.delete(caller(), argument)
    subnet.save()
    assert not (filled / "canisters" / to_text(CANISTER)).exists()
    subnet.stop()


def test_chunks_that_nobody_knows_of_can_be_cleared(filled: Path) -> None:
    subnet = open_subnet(filled)
    folder = filled / "chunks" / to_text(CANISTER)
    folder.mkdir(parents=True)
    (folder / "from a killed process").write_bytes(b"")
    subnet.management.clear_chunks(caller(), {"canister_id": CANISTER})
    assert not folder.exists()
    subnet.stop()


@pytest.mark.parametrize("damage", ["state", "module", "heap", "version", "folder", "subnet"])
def test_what_is_gone_is_refused_and_not_replaced_by_nothing(filled: Path, damage: str) -> None:
    folder = filled / "canisters" / to_text(CANISTER)
    if damage == "folder":
        shutil.rmtree(folder)
    elif damage == "subnet":
        for path in (filled / "subnet.0", filled / "subnet.1"):
            path.unlink()
    elif damage == "version":
        (folder / "state").write_bytes(b"icgptc1\n" + bytes(60))
    else:
        next(path for path in folder.iterdir() if path.name.startswith(damage)).unlink()
    for _ in range(2):  # the first attempt has thrown nothing away
        with pytest.raises(StateError, match="icgpt network reset"):
            open_subnet(filled)


def test_a_store_that_fails_keeps_the_last_good_state(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subnet = open_subnet(filled)
    subnet.save()

    def half(file: int, data: memoryview, offset: int) -> None:
        os.pwrite(file, data[: len(data) // 2], offset)
        raise OSError("no space left on the device")

    with monkeypatch.context() as patch:
        patch.setattr("icgpt.replica.state.write_all", half)
        for _ in range(3):
            with pytest.raises(OSError, match="no space"):
                subnet.save()
    kill(subnet)
    subnet = open_subnet(filled)
    assert subnet.router.hosted[CANISTER].code.installed
    subnet.stop()


def test_the_network_answers_while_its_disk_is_full(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        subnet = Subnet(filled, lambda _: loop.call_soon_threadsafe(told.set) and None)
        request = Request(b"r" * 32, "call", b"\x04", 1 << 62, CANISTER, "inc")

        def fail(*_: object) -> None:
            raise OSError("no space left on the device")

        with monkeypatch.context() as patch:
            patch.setattr(Log, "_write", fail)
            patch.setattr(Store, "save", fail)
            subnet.start()
            subnet.submit(request, CANISTER)
            await asyncio.wait_for(told.wait(), 60)
            query = Request(b"q" * 32, "query", b"\x04", 1 << 62, CANISTER, "get")
            answer = await asyncio.wrap_future(subnet.ask(Kind.QUERY, query))
            assert answer.reply == b"\x01\x00\x00\x00"
        await asyncio.to_thread(subnet.stop)

    asyncio.run(run())
    subnet = open_subnet(filled)
    entry = subnet.history.get(b"r" * 32)
    assert entry is not None
    assert entry.status == "replied"
    subnet.stop()


def test_amounts_of_cycles_are_bounded(raw: Raw) -> None:
    """A balance that does not fit into 128 bits would break every canister that asks for it."""
    canister = raw.create()
    for amount, expected in ((1 << 128, "rejected"), ((1 << 128) - 1, "replied")):
        value = {"canister_id": canister, "amount": amount}
        method = "provisional_top_up_canister"
        assert raw.manage(method, types.TOP_UP, value, canister)[0] == expected
    assert raw.status(canister)["cycles"] <= (1 << 128) - 1


def test_arguments_with_too_many_values_are_refused(raw: Raw) -> None:
    # A record and, as arguments that nobody asked for, a blob and a vector of `null`, which takes
    # no bytes: the blob is what makes the message long enough for two million of them.
    head = b"DIDL\x03\x6c\x00\x6d\x7b\x6d\x7f\x03\x00\x01\x02"
    blob = unsigned_leb128(600_000) + bytes(600_000)
    method = "provisional_create_canister_with_cycles"
    bomb = head + blob + unsigned_leb128(2_000_000)
    status, (_, text, error) = raw.call(b"", method, bomb)
    assert (status, error) == ("refused", "IC0408")
    assert "a vector of 2000000 elements" in text
    assert raw.call(b"", method, head + blob + unsigned_leb128(20))[0] == "replied"


def test_empty_lines_do_not_grow_the_log_for_ever() -> None:
    record = CanisterRecord(CANISTER, Settings(), 0)
    for number in range(500):
        record.add_log([(number, b"")] * 3 + [(number, b"x" * 9_000)] * (number % 5 == 0))
    assert 0 < record.log_bytes <= record.settings.log_memory_limit
    record.settings = Settings(log_memory_limit=0)
    record.add_log([(1, b"line")])
    assert record.log == []


@pytest.mark.parametrize("host", ["192.0.2.1", "::", "example.org", "192.168.1.1"])
def test_only_this_machine_is_listened_on(
    tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["icgpt.replica", "--state-dir", str(tmp_path / "state"), "--host", host]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        replica_main()
    assert "only this machine" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()

"""The management canister: the life of a canister, its settings, and who may do what."""

from __future__ import annotations

import hashlib
import struct
import time
from typing import Any

import pytest
from replica_kit import Ed25519, Raw, hash_of, lookup, number, wasm

from icgpt.candid import BLOB, NAT, NULL, PRINCIPAL, Record, Variant, decode, encode
from icgpt.principal import to_text
from icgpt.replica import management_types as types

OTHER = Ed25519(1)


def settings(raw: Raw, canister: bytes, **wanted: Any) -> tuple[str, Any]:
    value = {"canister_id": canister, "settings": wanted}
    return raw.manage("update_settings", types.UPDATE_SETTINGS, value, canister)


def test_creation(raw: Raw) -> None:
    plain = raw.create()
    status = raw.status(plain)
    assert status["cycles"] == pytest.approx(10**14, rel=1e-4)
    assert status["module_hash"] is None
    assert status["status"] == {"running": None}
    assert status["settings"]["controllers"] == [raw.sender]
    assert raw.create() != plain
    wanted = bytes(6) + b"\x12\x34\x01\x01"
    both = {"controllers": [raw.sender, OTHER.principal]}
    assert raw.create(specified_id=wanted, amount=10**12, settings=both) == wanted
    assert raw.status(wanted)["settings"]["controllers"] == [raw.sender, OTHER.principal]
    method = "provisional_create_canister_with_cycles"
    status_text, (code, text, error) = raw.manage(
        method, types.PROVISIONAL_CREATE, {"specified_id": wanted}, b""
    )
    assert (status_text, code, error) == ("rejected", 2, "IC0205")
    assert "already exists" in text
    odd = raw.manage(method, types.PROVISIONAL_CREATE, {"specified_id": b"\x01"}, b"")
    assert odd[1][2] == "IC0408"


def test_installing_upgrading_reinstalling(raw: Raw) -> None:
    canister = raw.create()
    module = wasm()
    assert raw.install(canister, module, struct.pack("<I", 40))[0] == "replied"
    assert raw.status(canister)["module_hash"] == hashlib.sha256(module).digest()
    assert number(raw.update(canister, "inc")) == 41
    status, (code, text, error) = raw.install(canister)
    assert (status, code, error) == ("rejected", 5, "IC0514")
    assert "is not empty" in text
    assert raw.install(canister, mode="upgrade")[0] == "replied"
    assert number(raw.query(canister, "get")) == 42
    skipping = {"upgrade": {"skip_pre_upgrade": True}}
    raw.update(canister, "inc")
    assert raw.install(canister, mode=skipping)[0] == "replied"
    assert number(raw.query(canister, "get")) == 42
    assert raw.install(canister, mode="reinstall")[0] == "replied"
    assert number(raw.query(canister, "get")) == 0
    empty = raw.create()
    assert raw.install(empty, mode="upgrade")[1][2] == "IC0537"


def test_failed_installations_change_nothing(raw: Raw, canister: bytes) -> None:
    raw.update(canister, "inc")
    before = raw.status(canister)["module_hash"]
    for junk in (b"", b"\x00asm", b"\x00asm\x01\x00\x00\x00\xff\xff", b"\x1f\x8b\x08junk"):
        status, (code, _, error) = raw.install(canister, junk, mode="upgrade")
        assert (status, code, error) == ("rejected", 5, "IC0505")
    trapping = wasm('(module (func (export "canister_post_upgrade") unreachable))')
    assert raw.install(canister, trapping, mode="upgrade")[0] == "rejected"
    assert raw.status(canister)["module_hash"] == before
    assert number(raw.query(canister, "get")) == 1


def test_installation_in_chunks(raw: Raw) -> None:
    canister, store = raw.create(), raw.create()
    # A custom section makes the module larger than one chunk.
    size = 3 << 19
    module = wasm() + b"\x00" + leb_fixed(size) + b"\x04test" + bytes(size - 5)
    chunks = [module[i : i + (1 << 20)] for i in range(0, len(module), 1 << 20)]
    assert len(chunks) == 2
    hashes = []
    for chunk in chunks:
        value = {"canister_id": store, "chunk": chunk}
        reply = raw.managed("upload_chunk", types.UPLOAD_CHUNK, value, store)
        hashes.append(decode(reply, [types.CHUNK_HASH])[0])
        assert hashes[-1]["hash"] == hashlib.sha256(chunk).digest()
    reply = raw.managed("stored_chunks", types.CANISTER, {"canister_id": store}, store)
    assert decode(reply, [types.CHUNKS]) == [hashes]
    wanted = {
        "mode": {"install": None},
        "target_canister": canister,
        "store_canister": store,
        "chunk_hashes_list": hashes,
        "wasm_module_hash": hashlib.sha256(module).digest(),
        "arg": struct.pack("<I", 7),
    }
    for wrong in ({"wasm_module_hash": bytes(32)}, {"chunk_hashes_list": [{"hash": bytes(32)}]}):
        value = {**wanted, **wrong}
        answer = raw.manage("install_chunked_code", types.INSTALL_CHUNKED, value, canister)
        assert answer[1][2] == "IC0504"
    raw.managed("install_chunked_code", types.INSTALL_CHUNKED, wanted, canister)
    assert number(raw.query(canister, "get")) == 7
    assert raw.simple("clear_chunk_store", store)[0] == "replied"
    assert raw.status(store)["memory_metrics"]["wasm_chunk_store_size"] == 0
    large = {"canister_id": store, "chunk": bytes((1 << 20) + 1)}
    assert raw.manage("upload_chunk", types.UPLOAD_CHUNK, large, store)[1][2] == "IC0504"


def leb_fixed(value: int) -> bytes:
    return bytes([value & 127 | 128, value >> 7 & 127 | 128, value >> 14 & 127 | 128, value >> 21])


def test_stopping_starting_deleting(raw: Raw, canister: bytes) -> None:
    assert raw.simple("delete_canister", canister)[1][2] == "IC0510"
    assert raw.simple("stop_canister", canister)[0] == "replied"
    assert raw.status(canister)["status"] == {"stopped": None}
    status, (code, text, error) = raw.call(canister, "inc")
    assert (status, code, error) == ("refused", 5, "IC0508")
    assert text == f"Canister {to_text(canister)} is stopped"
    assert raw.query_document(canister, "get")["error_code"] == "IC0508"
    assert raw.simple("stop_canister", canister)[0] == "replied"
    assert raw.simple("start_canister", canister)[0] == "replied"
    assert number(raw.update(canister, "inc")) == 1
    raw.simple("stop_canister", canister)
    assert raw.simple("delete_canister", canister)[0] == "replied"
    assert raw.call(canister, "inc")[1][2] == "IC0301"
    assert raw.simple("canister_status", canister)[1][2] == "IC0301"


def test_stopping_waits_for_open_calls(raw: Raw, canister: bytes) -> None:
    """A canister that waits for an answer is stopping until the answer has come."""
    other = raw.new()
    argument = encode([types.CANISTER], [{"canister_id": canister}])
    settings(raw, canister, controllers=[raw.sender, other])
    path = f"v2/canister/{to_text(canister)}/call"
    busy = raw.call_content(canister, "chain", struct.pack("<I", 300))
    raw.post(path, raw.envelope(busy))
    status, answer = raw.proxy(other, b"", "stop_canister", argument)
    assert (status, answer) == ("replied", b"DIDL\x00\x00")
    assert raw.status(canister)["status"] == {"stopped": None}
    # The chain's next link was refused as the canister was stopping, and said so.
    status, reply = raw.poll(canister, hash_of(busy))
    assert status == "replied"
    assert reply == b"done" or b"is stopping" in reply


def test_uninstalling(raw: Raw, canister: bytes) -> None:
    assert raw.simple("uninstall_code", canister)[0] == "replied"
    assert raw.status(canister)["module_hash"] is None
    assert raw.call(canister, "inc")[1][2] == "IC0537"
    assert raw.install(canister)[0] == "replied"
    assert number(raw.update(canister, "inc")) == 1


def certified_times(raw: Raw, canister: bytes) -> list[int | None]:
    """When the canister was created, and when its code was put there."""
    names = (b"canister_creation_timestamp", b"last_install_timestamp")
    tree = raw.read(canister, *([b"canister", canister, name] for name in names))
    found = (lookup(tree, b"canister", canister, name) for name in names)
    # A number in LEB128: seven bits a byte, the lowest first.
    return [
        None if raw is None else sum((byte & 127) << 7 * i for i, byte in enumerate(raw))
        for raw in found
    ]


def test_creation_and_installation_are_dated(raw: Raw) -> None:
    begun = time.time_ns()
    canister = raw.create()
    created, none = certified_times(raw, canister)
    assert created is not None
    assert none is None
    assert begun <= created <= time.time_ns()
    seen = created
    for mode in ("install", "upgrade", "reinstall"):
        assert raw.install(canister, mode=mode)[0] == "replied"
        now = certified_times(raw, canister)
        assert now[0] == created
        assert now[1] is not None
        assert seen < now[1] <= time.time_ns()
        seen = now[1]
    raw.simple("uninstall_code", canister)
    assert certified_times(raw, canister) == [created, None]


def test_settings_change_what_they_name(raw: Raw, canister: bytes) -> None:
    viewers = {"allowed_viewers": [OTHER.principal]}
    variables = [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]
    answer = settings(
        raw,
        canister,
        freezing_threshold=10,
        log_visibility=viewers,
        environment_variables=variables,
        wasm_memory_limit=1 << 30,
    )
    assert answer[0] == "replied"
    now = raw.status(canister)["settings"]
    assert now["freezing_threshold"] == 10
    assert now["log_visibility"] == viewers
    assert now["environment_variables"] == variables[::-1]
    assert now["wasm_memory_limit"] == 1 << 30
    assert now["controllers"] == [raw.sender]
    settings(raw, canister, compute_allocation=1)
    assert raw.status(canister)["settings"]["freezing_threshold"] == 10
    assert raw.status(canister)["idle_cycles_burned_per_day"] >= 86_400 * 10**7


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"controllers": [bytes([n]) for n in range(11)]}, "IC0504"),
        ({"compute_allocation": 101}, "IC0504"),
        ({"freezing_threshold": 1 << 64}, "IC0504"),
        ({"wasm_memory_threshold": (1 << 48) + 1}, "IC0504"),
        ({"minimum_incoming_canister_call_cycles": 1 << 128}, "IC0504"),
        ({"environment_variables": [{"name": "x" * 129, "value": ""}]}, "IC0408"),
        ({"environment_variables": [{"name": "", "value": ""}] * 21}, "IC0408"),
        ({"log_visibility": {"allowed_viewers": [b""] * 11}}, "IC0504"),
    ],
)
def test_settings_that_make_no_sense(
    raw: Raw, canister: bytes, wanted: dict[str, Any], error: str
) -> None:
    before = raw.status(canister)["settings"]
    assert settings(raw, canister, **wanted)[1][2] == error
    assert raw.status(canister)["settings"] == before


def test_only_controllers_control(raw: Raw, canister: bytes) -> None:
    stranger = Raw(raw.url, raw.root_key, OTHER)
    for method in ("stop_canister", "start_canister", "delete_canister", "uninstall_code"):
        status, (code, text, error) = stranger.simple(method, canister)
        assert (status, code, error) == ("refused", 5, "IC0512")
        assert text.startswith("Only controllers of canister")
    status, (code, text, error) = stranger.simple("canister_status", canister)
    assert (status, code, error) == ("rejected", 5, "IC0512")
    assert text.startswith("Only the controllers of the canister")
    assert stranger.install(canister, mode="reinstall")[0] == "refused"
    settings(raw, canister, controllers=[OTHER.principal])
    assert stranger.simple("stop_canister", canister)[0] == "replied"
    assert raw.simple("start_canister", canister)[0] == "refused"
    # A canister sees its own status, and may not delete itself.
    stranger.simple("start_canister", canister)
    argument = encode([types.CANISTER], [{"canister_id": canister}])
    status, reply = raw.proxy(canister, b"", "canister_status", argument)
    assert decode(reply, [types.STATUS])[0]["status"] == {"running": None}
    settings(stranger, canister, controllers=[OTHER.principal, canister])
    status, reply = raw.proxy(canister, b"", "delete_canister", argument)
    assert b"cannot delete itself" in reply


def test_what_users_may_not_call(raw: Raw, canister: bytes) -> None:
    for method in ("create_canister", "deposit_cycles", "fetch_canister_logs"):
        assert raw.simple(method, canister)[0] == "refused"
    status, (code, text, error) = raw.call(b"", "raw_rand", b"DIDL\x00\x00")
    assert (status, code, error) == ("refused", 4, "IC0406")
    assert text == "Only canisters can call ic00 method raw_rand"
    assert raw.call(b"", "nothing", b"")[1][2] == "IC0536"
    assert raw.call(b"", "install_code", b"junk")[1][2] == "IC0408"
    assert raw.call(b"", "install_code", encode([], []))[1][2] == "IC0408"


def test_old_clients_send_fewer_fields(raw: Raw) -> None:
    canister = raw.create()
    mode = Variant(dict.fromkeys(("install", "reinstall", "upgrade"), NULL))
    kind = Record({"mode": mode, "canister_id": PRINCIPAL, "wasm_module": BLOB, "arg": BLOB})
    value = {"mode": {"install": None}, "canister_id": canister, "wasm_module": wasm(), "arg": b""}
    assert raw.manage("install_code", kind, value, canister)[0] == "replied"
    value["mode"] = {"upgrade": None}
    assert raw.manage("install_code", kind, value, canister)[0] == "replied"
    top_up = Record({"canister_id": PRINCIPAL, "amount": NAT})
    before = raw.status(canister)["cycles"]
    value = {"canister_id": canister, "amount": 10**12}
    raw.managed("provisional_top_up_canister", top_up, value, canister)
    assert raw.status(canister)["cycles"] > before + 9 * 10**11

"""Snapshots: what they keep, who may have them, how they travel to another canister."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from replica_kit import Ed25519, Raw, number, wasm

from icgpt import network
from icgpt.candid import decode
from icgpt.replica import management_types as types
from icgpt.replica import snapshot_types


def take(raw: Raw, canister: bytes, **fields: Any) -> bytes:
    value = {"canister_id": canister, **fields}
    reply = raw.managed("take_canister_snapshot", snapshot_types.TAKE, value, canister)
    return bytes(decode(reply, [snapshot_types.SNAPSHOT])[0]["id"])


def one(raw: Raw, method: str, canister: bytes, snapshot: bytes) -> tuple[str, Any]:
    value = {"canister_id": canister, "snapshot_id": snapshot}
    return raw.manage(method, snapshot_types.ONE, value, canister)


def listed(raw: Raw, canister: bytes) -> list[dict[str, Any]]:
    reply = raw.managed(
        "list_canister_snapshots", types.CANISTER, {"canister_id": canister}, canister
    )
    found: list[dict[str, Any]] = decode(reply, [snapshot_types.SNAPSHOTS])[0]
    return found


def test_loading_goes_back_to_memory_code_and_certified_data(raw: Raw, canister: bytes) -> None:
    raw.update(canister, "inc")
    raw.update(canister, "certify", b"before")
    chunk = {"canister_id": canister, "chunk": b"a piece"}
    raw.managed("upload_chunk", types.UPLOAD_CHUNK, chunk, canister)
    before = raw.status(canister)
    snapshot = take(raw, canister)
    assert snapshot == bytes(8) + canister
    raw.update(canister, "inc")
    raw.update(canister, "certify", b"after")
    raw.simple("clear_chunk_store", canister)
    assert raw.install(canister, wasm("(module)"), mode="reinstall")[0] == "replied"
    assert one(raw, "load_canister_snapshot", canister, snapshot)[0] == "replied"
    assert number(raw.query(canister, "get")) == 1
    assert number(raw.update(canister, "inc")) == 2
    tree = raw.query(canister, "certificate")
    assert b"before" in tree
    assert b"after" not in tree
    after = raw.status(canister)
    assert after["module_hash"] == before["module_hash"]
    sizes, sizes_before = after["memory_metrics"], before["memory_metrics"]
    assert sizes["wasm_chunk_store_size"] == sizes_before["wasm_chunk_store_size"] == 7
    assert sizes["snapshots_size"] == listed(raw, canister)[0]["total_size"]


def test_snapshots_survive_a_restart_and_go_with_their_canister(tmp_path: Path) -> None:
    info = network.start(tmp_path, port=0)
    try:
        raw = Raw(info.url, info.root_key)
        canister = raw.new()
        raw.update(canister, "inc")
        snapshot = take(raw, canister)
        raw.update(canister, "inc")
        network.stop(tmp_path)
        info = network.start(tmp_path, port=0)
        raw = Raw(info.url, info.root_key)
        assert one(raw, "load_canister_snapshot", canister, snapshot)[0] == "replied"
        assert number(raw.query(canister, "get")) == 1
        raw.simple("stop_canister", canister)
        raw.simple("delete_canister", canister)
        network.stop(tmp_path)
        assert not list((tmp_path / "snapshots").glob("*"))
    finally:
        network.stop(tmp_path)


def test_refusals(raw: Raw, canister: bytes) -> None:
    other = raw.new()
    unknown = (9).to_bytes(8, "big") + canister
    expected = {unknown: (3, "IC0305", "Could not find"), take(raw, other): (4, "IC0406", "belong")}
    for snapshot, (code, error, text) in expected.items():
        for method in ("load_canister_snapshot", "delete_canister_snapshot"):
            status, value = one(raw, method, canister, snapshot)
            assert status == "rejected"
            assert (value[0], value[2]) == (code, error)
            assert text in value[1]
    empty = raw.create()
    status, value = raw.manage(
        "take_canister_snapshot", snapshot_types.TAKE, {"canister_id": empty}, empty
    )
    assert (status, value[2]) == ("rejected", "IC0406")
    for _ in range(10):
        last = take(raw, canister)
    full = {"canister_id": canister}
    status, value = raw.manage("take_canister_snapshot", snapshot_types.TAKE, full, canister)
    assert "maximum number of snapshots allowed: 10" in value[1]
    newest = take(raw, canister, replace_snapshot=last)
    ids = [item["id"] for item in listed(raw, canister)]
    assert len(ids) == 10
    assert last not in ids
    assert newest in ids
    stranger = Raw(raw.url, raw.root_key, Ed25519(7))
    status, value = stranger.manage(
        "list_canister_snapshots", types.CANISTER, {"canister_id": canister}, canister
    )
    assert value[2] == "IC0512"
    assert one(stranger, "load_canister_snapshot", canister, newest)[0] == "refused"


def read_all(raw: Raw, canister: bytes, snapshot: bytes, kind: str, size: int) -> bytes:
    data = b""
    while len(data) < size:
        place = {"offset": len(data), "size": min(1_900_000, size - len(data))}
        value = {"canister_id": canister, "snapshot_id": snapshot, "kind": {kind: place}}
        reply = raw.managed(
            "read_canister_snapshot_data", snapshot_types.READ_DATA, value, canister
        )
        data += decode(reply, [snapshot_types.DATA])[0]["chunk"]
    return data


def test_a_snapshot_travels_to_another_canister(raw: Raw, canister: bytes) -> None:
    for _ in range(3):
        raw.update(canister, "inc")
    snapshot = take(raw, canister)
    value = {"canister_id": canister, "snapshot_id": snapshot}
    reply = raw.managed("read_canister_snapshot_metadata", snapshot_types.ONE, value, canister)
    (metadata,) = decode(reply, [snapshot_types.METADATA])
    assert metadata["source"] == {"taken_from_canister": None}
    target = raw.create()
    upload = {name for _, name, _ in snapshot_types.UPLOAD_METADATA.fields}
    wanted = {key: metadata[key] for key in metadata if key in upload}
    reply = raw.managed(
        "upload_canister_snapshot_metadata",
        snapshot_types.UPLOAD_METADATA,
        {**wanted, "canister_id": target},
        target,
    )
    uploaded = decode(reply, [snapshot_types.UPLOADED])[0]["snapshot_id"]
    for kind in ("wasm_module", "wasm_memory", "stable_memory"):
        data = read_all(raw, canister, snapshot, kind, metadata[f"{kind}_size"])
        for at in range(0, len(data), 1_900_000):
            piece = data[at : at + 1_900_000]
            if any(piece):
                value = {"canister_id": target, "snapshot_id": uploaded, "chunk": piece}
                value["kind"] = {kind: {"offset": at}}
                method = "upload_canister_snapshot_data"
                raw.managed(method, snapshot_types.UPLOAD_DATA, value, target)
    assert one(raw, "load_canister_snapshot", target, uploaded)[0] == "replied"
    assert number(raw.update(target, "inc")) == 4
    value = {"canister_id": canister, "snapshot_id": snapshot, "chunk": b"x"}
    value["kind"] = {"wasm_module": {"offset": 0}}
    status, refusal = raw.manage(
        "upload_canister_snapshot_data", snapshot_types.UPLOAD_DATA, value, canister
    )
    assert (status, refusal[0], refusal[2]) == ("rejected", 4, "IC0409")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"wasm_memory_size": 1}, "no possible size"),
        ({"stable_memory_size": 1 << 60}, "no possible size"),
        ({"certified_data": bytes(33)}, "32 bytes"),
    ],
)
def test_impossible_metadata_is_refused(
    raw: Raw, canister: bytes, change: dict[str, Any], text: str
) -> None:
    value = {
        "canister_id": canister,
        "wasm_module_size": 8,
        "wasm_memory_size": 0,
        "stable_memory_size": 0,
        "globals": [],
        "certified_data": b"",
    }
    status, refusal = raw.manage(
        "upload_canister_snapshot_metadata",
        snapshot_types.UPLOAD_METADATA,
        value | change,
        canister,
    )
    assert status == "rejected"
    assert text in refusal[1]


def test_an_upload_that_makes_no_sense_changes_nothing(raw: Raw, canister: bytes) -> None:
    raw.update(canister, "inc")
    value = {
        "canister_id": canister,
        "wasm_module_size": 8,
        "wasm_memory_size": 1 << 16,
        "stable_memory_size": 0,
        "globals": [{"i32": 1}],
        "certified_data": b"",
    }
    reply = raw.managed(
        "upload_canister_snapshot_metadata", snapshot_types.UPLOAD_METADATA, value, canister
    )
    uploaded = decode(reply, [snapshot_types.UPLOADED])[0]["snapshot_id"]
    status, refusal = one(raw, "load_canister_snapshot", canister, uploaded)
    assert (status, refusal[2]) == ("rejected", "IC0408")
    assert number(raw.update(canister, "inc")) == 2

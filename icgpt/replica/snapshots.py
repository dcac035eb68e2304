"""Snapshots of canisters: taken, loaded, listed, deleted, and carried from one network to another.

A snapshot is a folder of three files (module, heap, stable memory) and, in the canister's record,
all else that loading it needs. Uploaded snapshots begin as sizes and zeros, and are filled piece by
piece; whether they make sense is found out when they are loaded. Files are written before the
record names them, so that a killed process leaves folders that nobody names, never the reverse.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icgpt.candid import encode
from icgpt.principal import to_text
from icgpt.replica import chunks, fees, rejects
from icgpt.replica import snapshot_types as types
from icgpt.replica.files import copy_file
from icgpt.replica.folder import DamagedState
from icgpt.replica.global_values import from_candid, to_candid
from icgpt.replica.records import Change, Snapshot
from icgpt.replica.rejects import RejectError
from icgpt.replica.routing import EMPTY_REPLY, Hosted
from icgpt.replica.settings import seen_by
from icgpt.replica.stable import MAX_PAGES, WASM_PAGE
from icgpt.replica.wasm import InvalidModule

if TYPE_CHECKING:
    from icgpt.replica.management import Caller, Management

MAX_SNAPSHOTS = 10
MAX_SLICE = 2_000_000
MAX_MODULE = 100 << 20
MAX_HEAP = 4 << 30
MAX_GLOBALS = 1_000
TAKEN, UPLOADED = "taken_from_canister", "metadata_upload"
BASE_INSTRUCTIONS = 2_000_000_000  # that taking or loading one costs, besides one for each byte
DATA_INSTRUCTIONS = 5_000_000  # that reading or writing a piece costs, besides one for each byte

_FILES = {"wasm_module": "module", "wasm_memory": "heap", "stable_memory": "stable"}


def folder_of(root: Path, canister: bytes, snapshot: bytes) -> Path:
    """Return where a snapshot's files are."""
    return root / "snapshots" / to_text(canister) / snapshot.hex()


# --- what is asked for


def _find(hosted: Hosted, identifier: bytes) -> Snapshot:
    canister = hosted.record.id
    found = hosted.record.snapshots.get(identifier)
    if found is not None:
        return found
    if not identifier.endswith(canister) or len(identifier) != 8 + len(canister):
        text = f"The snapshot {identifier.hex()} does not belong to canister {to_text(canister)}."
        raise RejectError(rejects.reject(406, text + _USE_LIST))
    text = f"Could not find the snapshot ID {identifier.hex()} for canister {to_text(canister)}."
    raise RejectError(rejects.reject(305, text + _USE_LIST))


_USE_LIST = "\nUse the `list_canister_snapshot` API to see which snapshots are present."


def _path(management: Management, hosted: Hosted, identifier: bytes) -> Path:
    return folder_of(management.router.folder, hosted.record.id, identifier)


def _viewed(management: Management, caller: Caller, argument: dict[str, Any]) -> Hosted:
    """Return the canister, if the caller may see its snapshots."""
    hosted = management.hosted(argument["canister_id"])
    if seen_by(hosted.record.settings.snapshot_visibility, caller.id):
        return hosted
    return management.controlled(caller, argument["canister_id"], itself=True)


def _pay(hosted: Hosted, instructions: int) -> None:
    price = fees.execution(instructions)
    if hosted.available_cycles < price:
        missing = price - hosted.available_cycles
        reject = rejects.out_of_cycles(hosted.record.id, missing)
        text = f"Canister snapshotting failed with: `{reject.message}`"
        raise RejectError(rejects.reject(207, text))
    hosted.record.cycles -= price


def _room_for_one(hosted: Hosted, replaced: bytes | None) -> None:
    """Raise unless one more snapshot may be kept, or the one to be replaced exists."""
    if replaced is not None:
        _find(hosted, replaced)
    elif len(hosted.record.snapshots) >= MAX_SNAPSHOTS:
        text = (
            f"Canister {to_text(hosted.record.id)} has reached the maximum number of snapshots "
            f"allowed: {MAX_SNAPSHOTS}.\nConsider deleting an unnecessary snapshot of the "
            "specified canister before creating a new one."
        )
        raise RejectError(rejects.reject(406, text))


def _next_id(hosted: Hosted) -> bytes:
    record = hosted.record
    identifier = record.next_snapshot.to_bytes(8, "big") + record.id
    record.next_snapshot += 1
    return identifier


def _keep(
    management: Management,
    hosted: Hosted,
    identifier: bytes,
    snapshot: Snapshot,
    replaced: bytes | None,
) -> None:
    hosted.record.snapshots[identifier] = snapshot
    if replaced is not None:
        _drop(management, hosted, replaced)


def _drop(management: Management, hosted: Hosted, identifier: bytes) -> None:
    del hosted.record.snapshots[identifier]
    management.router.discard_folder(_path(management, hosted, identifier))


# --- the methods


def take(management: Management, caller: Caller, argument: dict[str, Any]) -> bytes:
    """Keep the canister's code and memory as they are now."""
    hosted = management.controlled(caller, argument["canister_id"], itself=True)
    record, code = hosted.record, hosted.code
    replaced = argument["replace_snapshot"]
    _room_for_one(hosted, replaced)
    if not code.installed:
        text = f"Failed to create snapshot for empty canister {to_text(record.id)}:"
        raise RejectError(rejects.reject(406, text))
    size = code.heap_bytes + code.stable_bytes + record.module_bytes
    _pay(hosted, BASE_INSTRUCTIONS + size)
    identifier = _next_id(hosted)
    path = _path(management, hosted, identifier)
    path.mkdir(parents=True)
    code.copy_to(path)
    store = management.chunk_folder(hosted)
    for digest in record.chunks:
        copy_file(store / digest.hex(), path / f"chunk-{digest.hex()}")
    snapshot = Snapshot(
        taken_at=management.router.now(),
        version=record.version,
        source=TAKEN,
        module_bytes=(path / "module").stat().st_size,
        heap_bytes=code.heap_bytes,
        stable_bytes=code.stable_bytes,
        globals=tuple((kind, raw) for _, kind, raw in code.globals),
        certified_data=record.certified_data,
        timer=record.timer,
        low_memory=record.low_memory,
        chunks=dict(record.chunks),
    )
    _keep(management, hosted, identifier, snapshot, replaced)
    if argument["uninstall_code"]:
        management.uninstall(caller, argument)
    return encode([types.SNAPSHOT], [_described(identifier, snapshot)])


def _described(identifier: bytes, snapshot: Snapshot) -> dict[str, Any]:
    size = snapshot.size
    return {"id": identifier, "taken_at_timestamp": snapshot.taken_at, "total_size": size}


def listed(management: Management, caller: Caller, argument: dict[str, Any]) -> bytes:
    """List the snapshots."""
    hosted = _viewed(management, caller, argument)
    found = [_described(*item) for item in hosted.record.snapshots.items()]
    return encode([types.SNAPSHOTS], [found])


def delete(management: Management, caller: Caller, argument: dict[str, Any]) -> bytes:
    """Delete a snapshot."""
    hosted = management.controlled(caller, argument["canister_id"], itself=True)
    identifier = argument["snapshot_id"]
    _find(hosted, identifier)
    _drop(management, hosted, identifier)
    return EMPTY_REPLY


def load(management: Management, caller: Caller, argument: dict[str, Any]) -> bytes:
    """Put the canister back to where it was when the snapshot was taken."""
    hosted = management.controlled(caller, argument["canister_id"], itself=True)
    record = hosted.record
    identifier = argument["snapshot_id"]
    snapshot = _find(hosted, identifier)
    _pay(hosted, BASE_INSTRUCTIONS + snapshot.size)
    path = _path(management, hosted, identifier)
    try:
        hosted.code.adopt(path, snapshot.heap_bytes, snapshot.stable_bytes, snapshot.globals)
    except (InvalidModule, DamagedState) as error:
        text = f"Snapshot {identifier.hex()} is inconsistent: {error}"
        raise RejectError(rejects.bad_payload(text)) from error
    store = management.chunk_folder(hosted)
    chunks.clear(store, record)
    for digest, size in snapshot.chunks.items():
        store.mkdir(parents=True, exist_ok=True)
        copy_file(path / f"chunk-{digest.hex()}", store / digest.hex())
        record.chunks[digest] = size
    record.version += 1
    record.module_bytes = snapshot.module_bytes
    record.certified_data = snapshot.certified_data
    uploaded = snapshot.source == UPLOADED
    record.timer = snapshot.timer if uploaded else 0
    record.low_memory = snapshot.low_memory
    change = Change(
        "load_snapshot",
        mode=snapshot.source,
        snapshot=identifier,
        snapshot_version=snapshot.version,
        snapshot_time=snapshot.taken_at,
    )
    management.note(hosted, caller.author(argument["sender_canister_version"]), change)
    management.router.drop_contexts(hosted)
    management.router.publish(hosted)
    hosted.applied = hosted.code.commit
    return EMPTY_REPLY


def read_metadata(management: Management, caller: Caller, argument: dict[str, Any]) -> bytes:
    """Tell all that an upload of the same snapshot would have to give."""
    hosted = _viewed(management, caller, argument)
    snapshot = _find(hosted, argument["snapshot_id"])
    metadata = {
        "source": {snapshot.source: None},
        "taken_at_timestamp": snapshot.taken_at,
        "wasm_module_size": snapshot.module_bytes,
        "globals": [to_candid(kind, raw) for kind, raw in snapshot.globals],
        "wasm_memory_size": snapshot.heap_bytes,
        "stable_memory_size": snapshot.stable_bytes,
        "wasm_chunk_store": [{"hash": digest} for digest in snapshot.chunks],
        "canister_version": snapshot.version,
        "certified_data": snapshot.certified_data,
        "global_timer": {"active": snapshot.timer} if snapshot.timer else {"inactive": None},
        "on_low_wasm_memory_hook_status": {snapshot.low_memory: None},
    }
    return encode([types.METADATA], [metadata])


def read_data(management: Management, caller: Caller, argument: dict[str, Any]) -> bytes:
    """Read a piece of one of the files."""
    hosted = _viewed(management, caller, argument)
    identifier = argument["snapshot_id"]
    snapshot = _find(hosted, identifier)
    ((kind, place),) = argument["kind"].items()
    path = _path(management, hosted, identifier)
    if kind == "wasm_chunk":
        digest = place["hash"]
        if digest not in snapshot.chunks:
            text = f"WasmChunkStore of snapshot {identifier.hex()} has no chunk {digest.hex()}."
            raise RejectError(rejects.reject(504, f"Error from Wasm chunk store: {text}"))
        data = (path / f"chunk-{digest.hex()}").read_bytes()
    else:
        offset, size = place["offset"], place["size"]
        if size > MAX_SLICE:
            text = f"Requested slice too large: {size} > {MAX_SLICE}"
            raise RejectError(rejects.bad_payload(text))
        _check_slice(snapshot, kind, offset, size)
        with (path / _FILES[kind]).open("rb") as file:
            data = os.pread(file.fileno(), size, offset)
    _pay(hosted, DATA_INSTRUCTIONS + len(data))
    return encode([types.DATA], [{"chunk": data}])


def _check_slice(snapshot: Snapshot, kind: str, offset: int, size: int) -> None:
    whole = {
        "wasm_module": snapshot.module_bytes,
        "wasm_memory": snapshot.heap_bytes,
        "stable_memory": snapshot.stable_bytes,
    }[kind]
    if offset + size > whole:
        text = (
            "Invalid subslice into wasm module / main memory / stable memory: "
            f"offset: {offset}, size: {size}"
        )
        raise RejectError(rejects.bad_payload(text))


def upload_metadata(management: Management, caller: Caller, argument: dict[str, Any]) -> bytes:
    """Begin a snapshot that is to be filled from outside."""
    hosted = management.controlled(caller, argument["canister_id"], itself=True)
    replaced = argument["replace_snapshot"]
    _room_for_one(hosted, replaced)
    sizes = {name: argument[f"{name}_size"] for name in _FILES}
    for name, most in (
        ("wasm_module", MAX_MODULE),
        ("wasm_memory", MAX_HEAP),
        ("stable_memory", MAX_PAGES * WASM_PAGE),
    ):
        if sizes[name] > most or (name != "wasm_module" and sizes[name] % WASM_PAGE):
            raise _invalid(f"{name}_size {sizes[name]} is no possible size")
    if len(argument["certified_data"]) > 32:
        raise _invalid("certified_data has more than 32 bytes")
    if len(argument["globals"]) > MAX_GLOBALS:
        raise _invalid(f"more than {MAX_GLOBALS} globals")
    timer = argument["global_timer"] or {}
    _pay(hosted, BASE_INSTRUCTIONS + sum(sizes.values()))
    snapshot = Snapshot(
        taken_at=management.router.now(),
        version=hosted.record.version,
        source=UPLOADED,
        module_bytes=sizes["wasm_module"],
        heap_bytes=sizes["wasm_memory"],
        stable_bytes=sizes["stable_memory"],
        globals=tuple(map(from_candid, argument["globals"])),
        certified_data=argument["certified_data"],
        timer=timer.get("active") or 0,
        low_memory=next(iter(argument["on_low_wasm_memory_hook_status"] or {}), "")
        or "condition_not_satisfied",
    )
    identifier = _next_id(hosted)
    path = _path(management, hosted, identifier)
    path.mkdir(parents=True)
    for name, file in _FILES.items():
        with (path / file).open("wb") as stream:
            stream.truncate(sizes[name])
    _keep(management, hosted, identifier, snapshot, replaced)
    return encode([types.UPLOADED], [{"snapshot_id": identifier}])


def _invalid(reason: str) -> RejectError:
    return RejectError(rejects.reject(504, f"Could not validate the settings: {reason} "))


def upload_data(management: Management, caller: Caller, argument: dict[str, Any]) -> bytes:
    """Fill a piece of an uploaded snapshot."""
    hosted = management.controlled(caller, argument["canister_id"], itself=True)
    identifier, data = argument["snapshot_id"], argument["chunk"]
    snapshot = _find(hosted, identifier)
    if snapshot.source != UPLOADED:
        text = "Only canister snapshots created by metadata upload can be mutated."
        raise RejectError(rejects.reject(409, text))
    ((kind, place),) = argument["kind"].items()
    path = _path(management, hosted, identifier)
    _pay(hosted, DATA_INSTRUCTIONS + len(data))
    if kind == "wasm_chunk":
        digest = chunks.keep(path, snapshot.chunks, data, prefix="chunk-")
        grown = dict(snapshot.chunks) | {digest: len(data)}
        hosted.record.snapshots[identifier] = dataclasses.replace(snapshot, chunks=grown)
        return EMPTY_REPLY
    _check_slice(snapshot, kind, place["offset"], len(data))
    with (path / _FILES[kind]).open("r+b") as file:
        file.seek(place["offset"])
        file.write(data)
    return EMPTY_REPLY

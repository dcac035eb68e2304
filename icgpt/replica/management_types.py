"""Candid types of the management canister, as far as it is offered here."""

from __future__ import annotations

from icgpt.candid import (
    BLOB,
    BOOL,
    NAT,
    NAT64,
    NULL,
    PRINCIPAL,
    TEXT,
    Opt,
    Record,
    Type,
    Variant,
    Vec,
)

VISIBILITY = Variant({"controllers": NULL, "public": NULL, "allowed_viewers": Vec(PRINCIPAL)})
VARIABLES = Vec(Record({"name": TEXT, "value": TEXT}))
_PLAIN_SETTINGS: dict[str, Type] = {
    "controllers": Vec(PRINCIPAL),
    "compute_allocation": NAT,
    "memory_allocation": NAT,
    "freezing_threshold": NAT,
    "reserved_cycles_limit": NAT,
    "wasm_memory_limit": NAT,
    "wasm_memory_threshold": NAT,
    "log_memory_limit": NAT,
    "minimum_incoming_canister_call_cycles": NAT,
    "log_visibility": VISIBILITY,
    "snapshot_visibility": VISIBILITY,
    "status_visibility": VISIBILITY,
    "environment_variables": VARIABLES,
}
SETTINGS = Record({name: Opt(kind) for name, kind in _PLAIN_SETTINGS.items()})
DEFINITE_SETTINGS = Record(_PLAIN_SETTINGS)
CANISTER = Record({"canister_id": PRINCIPAL})
# By what version of itself a canister asks for a change: kept in the history.
SENDER: dict[str, Type] = {"sender_canister_version": Opt(NAT64)}
CHANGE = Record({"canister_id": PRINCIPAL} | SENDER)

CREATE = Record({"settings": Opt(SETTINGS)} | SENDER)
PROVISIONAL_CREATE = Record(
    {"amount": Opt(NAT), "settings": Opt(SETTINGS), "specified_id": Opt(PRINCIPAL)} | SENDER
)
UPDATE_SETTINGS = Record({"canister_id": PRINCIPAL, "settings": SETTINGS} | SENDER)
TOP_UP = Record({"canister_id": PRINCIPAL, "amount": NAT})

_UPGRADE = Record(
    {
        "skip_pre_upgrade": Opt(BOOL),
        "wasm_memory_persistence": Opt(Variant({"keep": NULL, "replace": NULL})),
    }
)
MODE = Variant({"install": NULL, "reinstall": NULL, "upgrade": Opt(_UPGRADE)})
INSTALL = Record(
    {"mode": MODE, "canister_id": PRINCIPAL, "wasm_module": BLOB, "arg": BLOB} | SENDER
)
CHUNK_HASH = Record({"hash": BLOB})
INSTALL_CHUNKED = Record(
    {
        "mode": MODE,
        "target_canister": PRINCIPAL,
        "store_canister": Opt(PRINCIPAL),
        "chunk_hashes_list": Vec(CHUNK_HASH),
        "wasm_module_hash": BLOB,
        "arg": BLOB,
    }
    | SENDER
)
UPLOAD_CHUNK = Record({"canister_id": PRINCIPAL, "chunk": BLOB})
CHUNKS = Vec(CHUNK_HASH)

STATUS_MEMORY = (
    "wasm_memory_size",
    "stable_memory_size",
    "global_memory_size",
    "wasm_binary_size",
    "custom_sections_size",
    "canister_history_size",
    "wasm_chunk_store_size",
    "snapshots_size",
    "log_memory_store_size",
)
STATUS_QUERIES = (
    "num_calls_total",
    "num_instructions_total",
    "request_payload_bytes_total",
    "response_payload_bytes_total",
)
STATUS = Record(
    {
        "status": Variant({"running": NULL, "stopping": NULL, "stopped": NULL}),
        "settings": DEFINITE_SETTINGS,
        "module_hash": Opt(BLOB),
        "memory_size": NAT,
        "cycles": NAT,
        "reserved_cycles": NAT,
        "idle_cycles_burned_per_day": NAT,
        "version": NAT64,
        "ready_for_migration": BOOL,
        "memory_metrics": Record(dict.fromkeys(STATUS_MEMORY, NAT)),
        "query_stats": Record(dict.fromkeys(STATUS_QUERIES, NAT)),
    }
)
_RANGE = Record({"start": NAT64, "end": NAT64})
FETCH_LOGS = Record(
    {
        "canister_id": PRINCIPAL,
        "filter": Opt(Variant({"by_idx": _RANGE, "by_timestamp_nanos": _RANGE})),
    }
)
SUBNET = Record({"subnet_id": PRINCIPAL})
SUBNET_INFO = Record({"replica_version": TEXT, "registry_version": NAT64})
LOGS = Record(
    {"canister_log_records": Vec(Record({"idx": NAT64, "timestamp_nanos": NAT64, "content": BLOB}))}
)

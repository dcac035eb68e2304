"""Candid types of the management canister's methods about snapshots."""

from __future__ import annotations

from icgpt.candid import (
    BLOB,
    BOOL,
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    NAT,
    NAT64,
    NULL,
    PRINCIPAL,
    RESERVED,
    Opt,
    Record,
    Type,
    Variant,
    Vec,
)
from icgpt.replica.management_types import SENDER

_OF_CANISTER: dict[str, Type] = {"canister_id": PRINCIPAL}
_OF_SNAPSHOT = _OF_CANISTER | {"snapshot_id": BLOB}

TAKE = Record(
    _OF_CANISTER | SENDER | {"replace_snapshot": Opt(BLOB), "uninstall_code": Opt(BOOL)},
)
SNAPSHOT = Record({"id": BLOB, "taken_at_timestamp": NAT64, "total_size": NAT64})
SNAPSHOTS = Vec(SNAPSHOT)
ONE = Record(_OF_SNAPSHOT | SENDER)  # the argument of load, delete and read_metadata

_GLOBAL = Variant({"i32": INT32, "i64": INT64, "f32": FLOAT32, "f64": FLOAT64, "v128": NAT})
_TIMER = Opt(Variant({"inactive": NULL, "active": NAT64}))
_HOOK = Opt(Variant({"condition_not_satisfied": NULL, "ready": NULL, "executed": NULL}))
_SIZES: dict[str, Type] = {
    "wasm_module_size": NAT64,
    "wasm_memory_size": NAT64,
    "stable_memory_size": NAT64,
    "certified_data": BLOB,
    "global_timer": _TIMER,
    "on_low_wasm_memory_hook_status": _HOOK,
}
METADATA = Record(
    _SIZES
    | {
        "source": Opt(Variant({"taken_from_canister": RESERVED, "metadata_upload": RESERVED})),
        "taken_at_timestamp": NAT64,
        "globals": Vec(Opt(_GLOBAL)),
        "wasm_chunk_store": Vec(Record({"hash": BLOB})),
        "canister_version": NAT64,
    }
)
_SLICE = Record({"offset": NAT64, "size": NAT64})
READ_DATA = Record(
    _OF_SNAPSHOT
    | {
        "kind": Variant(
            {
                "wasm_module": _SLICE,
                "wasm_memory": _SLICE,
                "stable_memory": _SLICE,
                "wasm_chunk": Record({"hash": BLOB}),
            }
        )
    }
)
DATA = Record({"chunk": BLOB})
UPLOAD_METADATA = Record(
    _OF_CANISTER | _SIZES | {"replace_snapshot": Opt(BLOB), "globals": Vec(_GLOBAL)}
)
UPLOADED = Record({"snapshot_id": BLOB})
_AT = Record({"offset": NAT64})
UPLOAD_DATA = Record(
    _OF_SNAPSHOT
    | {
        "kind": Variant(
            {"wasm_module": _AT, "wasm_memory": _AT, "stable_memory": _AT, "wasm_chunk": NULL}
        ),
        "chunk": BLOB,
    }
)

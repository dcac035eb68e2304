"""Values of Wasm globals between wasmtime's raw form and Candid's."""

from __future__ import annotations

import struct
from typing import Any

# By wasmtime's number of the kind: the name in Candid, and how many of the raw bytes count.
_KINDS = {0: ("i32", "<i"), 1: ("i64", "<q"), 2: ("f32", "<f"), 3: ("f64", "<d")}
_BY_NAME = {name: (kind, layout) for kind, (name, layout) in _KINDS.items()}
_V128 = 4
RAW = 16  # bytes of a raw value


def to_candid(kind: int, raw: bytes) -> dict[str, Any]:
    """Return a global as a Candid variant."""
    if kind == _V128:
        return {"v128": int.from_bytes(raw, "little")}
    name, layout = _KINDS[kind]
    return {name: struct.unpack_from(layout, raw)[0]}


def from_candid(value: dict[str, Any]) -> tuple[int, bytes]:
    """Return kind and raw bytes of a Candid variant."""
    ((name, number),) = value.items()
    if name == "v128":
        return _V128, (number & ((1 << 128) - 1)).to_bytes(RAW, "little")
    kind, layout = _BY_NAME[name]
    return kind, struct.pack(layout, number).ljust(RAW, b"\0")

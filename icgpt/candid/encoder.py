"""Python values to Candid messages: a type table, the arguments' types, then the values."""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from icgpt.candid.types import (
    BOOL,
    FIXED,
    INT,
    NAT,
    NAT8,
    NULL,
    OPT,
    PRINCIPAL,
    RECORD,
    RESERVED,
    TEXT,
    VARIANT,
    VEC,
    CandidError,
    Fields,
    Opt,
    Primitive,
    Record,
    Type,
    Variant,
    Vec,
    field_id,
    signed_leb128,
    unsigned_leb128,
)

if TYPE_CHECKING:
    import numpy as np


def encode(types: Sequence[Type], values: Sequence[Any]) -> bytes:
    """Encode one value for each type as a Candid message."""
    if len(types) != len(values):
        raise CandidError(f"{len(types)} types, but {len(values)} values")
    encoder = _Encoder()
    heads = [encoder.type(kind) for kind in types]
    for kind, value in zip(types, values, strict=True):
        encoder.value(kind, value)
    table = [unsigned_leb128(len(encoder.table)), *encoder.table]
    return b"".join([b"DIDL", *table, unsigned_leb128(len(types)), *heads, *encoder.out])


class _Encoder:
    def __init__(self) -> None:
        self.table: list[bytes] = []
        self.known: dict[Type, bytes] = {}
        self.out: list[bytes] = []

    def type(self, kind: Type) -> bytes:
        """Return the wire form of a type, adding it to the table unless it is primitive."""
        if isinstance(kind, Primitive):
            return signed_leb128(kind.code)
        if kind in self.known:
            return self.known[kind]
        if isinstance(kind, Opt):
            entry = signed_leb128(OPT) + self.type(kind.inner)
        elif isinstance(kind, Vec):
            entry = signed_leb128(VEC) + self.type(kind.inner)
        elif isinstance(kind, Fields):
            parts = [signed_leb128(RECORD if isinstance(kind, Record) else VARIANT)]
            parts.append(unsigned_leb128(len(kind.fields)))
            parts += [unsigned_leb128(n) + self.type(inner) for n, _, inner in kind.fields]
            entry = b"".join(parts)
        else:
            raise CandidError(f"values of {kind!r} can't be encoded")
        self.known[kind] = signed_leb128(len(self.table))
        self.table.append(entry)
        return self.known[kind]

    def value(self, kind: Type, value: Any) -> None:
        if isinstance(kind, Primitive):
            self.out.append(_encode_primitive(kind, value))
        elif isinstance(kind, Opt):
            if value is None:
                self.out.append(b"\x00")
            else:
                self.out.append(b"\x01")
                self.value(kind.inner, value)
        elif isinstance(kind, Vec):
            self.vector(kind.inner, value)
        elif isinstance(kind, Record):
            self.record(kind, value)
        elif isinstance(kind, Variant):
            if not isinstance(value, Mapping) or len(value) != 1:
                raise CandidError(f"a variant is a dict of one entry, not {_short(value)}")
            ((tag, inner),) = value.items()
            index, key, inner_type = kind.by_id.get(field_id(tag), (0, None, NULL))
            if key is None:
                raise CandidError(f"the variant has no tag {tag!r}")
            self.out.append(unsigned_leb128(index))
            self.value(inner_type, inner)

    def record(self, kind: Record, value: Any) -> None:
        if isinstance(value, tuple | list):
            value = dict(enumerate(value))
        if not isinstance(value, Mapping):
            raise CandidError(f"a record is a dict, not {_short(value)}")
        unknown = [key for key in value if field_id(key) not in kind.by_id]
        if unknown:
            raise CandidError(f"the record has no field {unknown[0]!r}")
        for _, key, inner in kind.fields:
            if key in value:
                self.value(inner, value[key])
            elif isinstance(inner, Opt) or inner in (NULL, RESERVED):
                self.value(inner, None)
            else:
                raise CandidError(f"the record's field {key!r} is missing")

    def vector(self, inner: Type, value: Any) -> None:
        if inner == NAT8 and isinstance(value, bytes | bytearray | memoryview):
            self.out += [unsigned_leb128(len(value)), bytes(value)]
            return
        if not (isinstance(value, list | tuple) or _is_array(value)):
            raise CandidError(f"a vector is a list, not {_short(value)}")
        self.out.append(unsigned_leb128(len(value)))
        letter = FIXED.get(inner.code) if isinstance(inner, Primitive) else None
        if letter is None:
            for item in value:
                self.value(inner, item)
            return
        if _is_array(value):
            import numpy as np

            target = np.dtype("<" + {"b": "i1", "B": "u1"}.get(letter, letter))
            if value.ndim == 1 and np.can_cast(value.dtype, target, "safe"):
                self.out.append(value.astype(target).tobytes())
                return
            value = value.tolist()
        try:
            self.out.append(struct.pack(f"<{len(value)}{letter}", *value))
        except (struct.error, OverflowError, TypeError) as error:
            raise CandidError(f"an element does not fit vec {inner}: {error}") from error


def _is_array(value: object) -> TypeGuard[np.ndarray]:
    """Whether this is an array of numpy's, which takes long to load and which few callers use."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _is_scalar(value: object, kind: str) -> bool:
    """Whether this is numpy's `bool_` or one of its integers."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, getattr(numpy, kind))


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, bytes | bytearray) else f"{len(value)} bytes"
    return text if len(text) <= 60 else text[:57] + "…"


def _encode_primitive(kind: Primitive, value: Any) -> bytes:
    if kind.code in FIXED:
        try:
            return struct.pack("<" + FIXED[kind.code], value)
        except (struct.error, OverflowError, TypeError) as error:
            raise CandidError(f"{_short(value)} is no {kind.name}: {error}") from error
    if kind == TEXT and isinstance(value, str):
        try:
            raw = value.encode()
        except UnicodeEncodeError as error:
            raise CandidError(f"{_short(value)} can't be written as UTF-8") from error
        return unsigned_leb128(len(raw)) + raw
    if kind == BOOL and (isinstance(value, bool) or _is_scalar(value, "bool_")):
        return b"\x01" if value else b"\x00"
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind in (NAT, INT) and (whole or _is_scalar(value, "integer")):
        return unsigned_leb128(int(value)) if kind == NAT else signed_leb128(int(value))
    if kind == PRINCIPAL and isinstance(value, bytes) and len(value) <= 29:
        return b"\x01" + bytes([len(value)]) + value
    if kind == RESERVED or (kind == NULL and value is None):
        return b""
    raise CandidError(f"{_short(value)} is no {kind.name}")

"""The types of Candid, and the two number encodings that it is made of.

A type is a small immutable value: the primitive ones are constants, the others are built, as in
`Vec(NAT32)` or `Record({"name": TEXT, "age": Opt(NAT8)})`. Field names go over the wire as
32-bit hashes (`field_id`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass


class CandidError(ValueError):
    """The bytes are no Candid message of the expected types, or a value does not fit its type."""


class Type:
    """A Candid type; the concrete ones are below."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Primitive(Type):
    """A type without parameters, known by its negative code."""

    code: int
    name: str


NULL = Primitive(-1, "null")
BOOL = Primitive(-2, "bool")
NAT = Primitive(-3, "nat")
INT = Primitive(-4, "int")
NAT8 = Primitive(-5, "nat8")
NAT16 = Primitive(-6, "nat16")
NAT32 = Primitive(-7, "nat32")
NAT64 = Primitive(-8, "nat64")
INT8 = Primitive(-9, "int8")
INT16 = Primitive(-10, "int16")
INT32 = Primitive(-11, "int32")
INT64 = Primitive(-12, "int64")
FLOAT32 = Primitive(-13, "float32")
FLOAT64 = Primitive(-14, "float64")
TEXT = Primitive(-15, "text")
RESERVED = Primitive(-16, "reserved")
EMPTY = Primitive(-17, "empty")
PRINCIPAL = Primitive(-24, "principal")

_NUMBERS = (NAT8, NAT16, NAT32, NAT64, INT8, INT16, INT32, INT64, FLOAT32, FLOAT64)
_OTHERS = (NULL, BOOL, NAT, INT, TEXT, RESERVED, EMPTY, PRINCIPAL)
PRIMITIVES = {kind.code: kind for kind in (*_NUMBERS, *_OTHERS)}
OPT, VEC, RECORD, VARIANT, FUNC, SERVICE = -18, -19, -20, -21, -22, -23
# struct letter and size of the types whose values have a fixed width
FIXED = {kind.code: letter for kind, letter in zip(_NUMBERS, "BHIQbhiqfd", strict=True)}
SIZE = {code: struct.calcsize("<" + letter) for code, letter in FIXED.items()}


@dataclass(frozen=True, slots=True)
class Opt(Type):
    """A value or None."""

    inner: Type


@dataclass(frozen=True, slots=True)
class Vec(Type):
    """A list; of `NAT8`, bytes."""

    inner: Type


Key = str | int


class Fields(Type):
    """What records and variants share: fields in the order of their ids."""

    __slots__ = ("_key", "by_id", "fields")

    def __init__(self, fields: Mapping[str, Type] | Mapping[int, Type] | None = None) -> None:
        entries = [(field_id(key), key, kind) for key, kind in (fields or {}).items()]
        ordered = sorted(entries, key=lambda entry: entry[0])
        self.fields: tuple[tuple[int, Key, Type], ...] = tuple(ordered)
        self.by_id: dict[int, tuple[int, Key, Type]] = {
            number: (index, key, kind) for index, (number, key, kind) in enumerate(ordered)
        }
        if len(self.by_id) != len(ordered):
            raise CandidError("two fields of one type have the same id")
        self._key = (type(self).__name__, self.fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        inner = ", ".join(f"{key!r}: {kind!r}" for _, key, kind in self.fields)
        return f"{type(self).__name__}({{{inner}}})"


class Record(Fields):
    """Named fields, or numbered ones, as `Record({0: TEXT, 1: NAT})`, for a tuple."""

    __slots__ = ()


class Variant(Fields):
    """One of several tagged values."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Func(Type):
    """A reference to a method; decoded only, as (canister, method)."""


@dataclass(frozen=True, slots=True)
class Service(Type):
    """A reference to a canister; decoded only, as its principal."""


@dataclass(frozen=True, slots=True)
class Whole(Type):
    """A value of any type; decoded only, as a message of its own with just this value."""


BLOB = Vec(NAT8)


def field_id(key: Key) -> int:
    """Return the number by which a field goes on the wire: a hash of its name."""
    if isinstance(key, int):
        return key
    number = 0
    for byte in key.encode():
        number = (number * 223 + byte) & 0xFFFFFFFF
    return number


def unsigned_leb128(number: int) -> bytes:
    """Encode a natural number, seven bits a byte, the lowest first."""
    if number < 0:
        raise CandidError(f"{number} is negative")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def signed_leb128(number: int) -> bytes:
    """Encode an integer, seven bits a byte, in two's complement."""
    out = bytearray()
    while not -0x40 <= number < 0x40:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number & 0x7F)
    return bytes(out)

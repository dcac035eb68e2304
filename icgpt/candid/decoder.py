"""Candid messages to Python values, along the expected types or as they were sent.

The bytes are foreign: type table, nesting and the number of values are capped, every length is
checked against what is left. What is read along expected types follows Candid's subtyping: extra
record fields and arguments are passed over, what is missing and optional becomes None.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from icgpt.candid.types import (
    BOOL,
    EMPTY,
    FIXED,
    FUNC,
    INT,
    NAT,
    NAT8,
    NULL,
    OPT,
    PRIMITIVES,
    PRINCIPAL,
    RECORD,
    RESERVED,
    SERVICE,
    SIZE,
    TEXT,
    VARIANT,
    VEC,
    CandidError,
    Func,
    Key,
    Opt,
    Primitive,
    Record,
    Type,
    Variant,
    Vec,
    Whole,
    field_id,
    signed_leb128,
)

MAX_TABLE = 4_096  # types in a message
MAX_FIELDS = 16_384  # fields and methods of all types in a message together
MAX_DEPTH = 128
MAX_NUMBER_BYTES = 256  # of one `nat` or `int`


def decode(
    data: bytes,
    types: Sequence[Type] | None,
    *,
    names: Iterable[str] = (),
    max_values: int | None = None,
) -> list[Any]:
    """Decode a Candid message.

    With `types`, the result has exactly one value for each of them. Without, everything is
    decoded as it was sent, and fields are called by those of `names` that hash to their ids.
    `max_values` bounds the work; by default it grows with the message.
    """
    decoder = _Decoder(bytes(data), max_values)
    wire = decoder.header()
    if types is None:
        decoder.names = {field_id(name): name for name in names}
        result = [decoder.any_value(t, 0) for t in wire]
    else:
        result = []
        for index, expected in enumerate(types):
            if index < len(wire):
                if not decoder.subtype(wire[index], expected):
                    raise CandidError(f"argument {index} has a type other than {expected}")
                result.append(decoder.value(wire[index], expected, 0))
            elif isinstance(expected, Opt) or expected in (NULL, RESERVED):
                result.append(None)
            else:
                raise CandidError(f"argument {index} is missing, of type {expected}")
        for extra in wire[len(types) :]:
            decoder.skip(extra, 0)
    if decoder.at != len(decoder.data):
        raise CandidError(f"{len(decoder.data) - decoder.at} bytes left over after the last value")
    return result


# A type of the message: its opcode, and what follows it. Opt and vec carry one reference, records
# and variants a list of (id, reference). A reference is a primitive's code or a table index.
_Wire = tuple[int, Any]


class _Decoder:
    def __init__(self, data: bytes, max_values: int | None) -> None:
        self.data = data
        self.at = 0
        # Each value costs one, so that vectors of elements without bytes can't take for ever.
        self.budget = max_values if max_values is not None else 100_000 + 4 * len(data)
        self.table: list[_Wire] = []
        self.table_end = 0
        self.names: dict[int, str] = {}
        self.relation: dict[tuple[int, Type], bool] = {}
        self.total_fields = 0

    # --- bytes

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise CandidError(f"the message ends early: {count} bytes expected at {self.at}")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def unsigned(self, limit: int = 10) -> int:
        number = shift = 0
        start = self.at
        while True:
            if self.at >= len(self.data) or self.at - start >= limit:
                raise CandidError(f"no number at byte {start}")
            byte = self.data[self.at]
            self.at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def signed(self, limit: int = 10) -> int:
        start = self.at
        number = self.unsigned(limit)
        if self.data[self.at - 1] & 0x40:
            number -= 1 << (7 * (self.at - start))
        return number

    def text(self) -> str:
        try:
            return self.take(self.unsigned()).decode()
        except UnicodeDecodeError as error:
            raise CandidError(f"text that is no UTF-8: {error}") from error

    # --- the type table

    def header(self) -> list[int]:
        if self.take(4) != b"DIDL":
            raise CandidError("a Candid message starts with DIDL")
        count = self.unsigned()
        if count > MAX_TABLE:
            raise CandidError(f"{count} types in a message; at most {MAX_TABLE} are accepted")
        for _ in range(count):
            self.table.append(self.entry())
        self.table_end = self.at
        for opcode, body in self.table:
            references = [body] if opcode in (OPT, VEC) else []
            if opcode in (RECORD, VARIANT):
                references = [reference for _, reference in body]
            for reference in references:
                self.check_reference(reference)
        wire = [self.signed() for _ in range(self.count_fields(self.unsigned()))]
        for reference in wire:
            self.check_reference(reference)
        return wire

    def count_fields(self, count: int) -> int:
        self.total_fields += count
        if self.total_fields > MAX_FIELDS:
            raise CandidError(f"a message with more than {MAX_FIELDS} fields")
        return count

    def check_reference(self, reference: int) -> None:
        if reference >= len(self.table) or (reference < 0 and reference not in PRIMITIVES):
            raise CandidError(f"there is no type {reference}")

    def entry(self) -> _Wire:
        opcode = self.signed()
        if opcode in (OPT, VEC):
            return opcode, self.signed()
        if opcode in (RECORD, VARIANT):
            fields: list[tuple[int, int]] = []
            for _ in range(self.count_fields(self.unsigned())):
                number, reference = self.unsigned(), self.signed()
                if number > 0xFFFFFFFF or (fields and fields[-1][0] >= number):
                    raise CandidError("the fields of a type are not in ascending order")
                fields.append((number, reference))
            return opcode, fields
        if opcode == FUNC:
            for _ in range(2):
                for _ in range(self.count_fields(self.unsigned())):
                    self.signed()
            for _ in range(self.count_fields(self.unsigned())):
                self.take(1)
            return opcode, None
        if opcode == SERVICE:
            for _ in range(self.count_fields(self.unsigned())):
                self.text()
                self.signed()
            return opcode, None
        raise CandidError(f"unknown type opcode {opcode}")

    def resolve(self, reference: int) -> _Wire:
        return (reference, None) if reference < 0 else self.table[reference]

    # --- subtyping

    def subtype(self, reference: int, expected: Type) -> bool:
        """Tell whether a value of the wire type can be read as the expected one.

        Expected types are finite trees, so this ends even where the wire type is recursive.
        """
        if (reference, expected) not in self.relation:
            self.relation[reference, expected] = self.examine(reference, expected)
        return self.relation[reference, expected]

    def examine(self, reference: int, expected: Type) -> bool:
        opcode, body = self.resolve(reference)
        if isinstance(expected, Opt | Whole) or expected == RESERVED or opcode == EMPTY.code:
            return True
        if isinstance(expected, Primitive):
            return opcode == expected.code or (expected == INT and opcode == NAT.code)
        if isinstance(expected, Vec):
            return opcode == VEC and self.subtype(body, expected.inner)
        if isinstance(expected, Record):
            if opcode != RECORD:
                return False
            fields = dict(body)
            return all(
                self.subtype(fields[number], kind)
                if number in fields
                else isinstance(kind, Opt) or kind in (NULL, RESERVED)
                for number, _, kind in expected.fields
            )
        if isinstance(expected, Variant):
            return opcode == VARIANT and all(
                number in expected.by_id and self.subtype(inner, expected.by_id[number][2])
                for number, inner in body
            )
        return opcode == (FUNC if isinstance(expected, Func) else SERVICE)

    # --- values

    def enter(self, depth: int) -> None:
        self.budget -= 1
        if self.budget < 0:
            raise CandidError("the message has too many values for its size")
        if depth > MAX_DEPTH:
            raise CandidError(f"values nested more than {MAX_DEPTH} deep")

    def flag(self) -> bool:
        byte = self.take(1)[0]
        if byte > 1:
            raise CandidError(f"byte {byte} where 0 or 1 is expected")
        return byte == 1

    def value(self, reference: int, expected: Type, depth: int) -> Any:
        """Read a value of a wire type that is known to be a subtype of `expected`."""
        self.enter(depth)
        opcode, body = self.resolve(reference)
        if isinstance(expected, Opt):
            return self.optional(reference, opcode, body, expected.inner, depth)
        if expected == RESERVED:
            return self.skip(reference, depth + 1)
        if isinstance(expected, Whole):
            start = self.at
            self.skip(reference, depth + 1)
            head = self.data[: self.table_end] + b"\x01" + signed_leb128(reference)
            return head + self.data[start : self.at]
        if isinstance(expected, Vec):
            return self.vector(body, expected.inner, depth)
        if isinstance(expected, Record):
            record: dict[Key, Any] = {key: None for _, key, _ in expected.fields}
            for number, inner in body:
                field = expected.by_id.get(number)
                if field is None:
                    self.skip(inner, depth + 1)
                else:
                    record[field[1]] = self.value(inner, field[2], depth + 1)
            return record
        if isinstance(expected, Variant):
            number, inner = self.pick(body)
            _, key, kind = expected.by_id[number]
            return {key: self.value(inner, kind, depth + 1)}
        return self.plain(opcode)

    def optional(self, reference: int, opcode: int, body: Any, inner: Type, depth: int) -> Any:
        if opcode in (NULL.code, RESERVED.code):
            return None
        if opcode == OPT:
            if not self.flag():
                return None
            if self.subtype(body, inner):
                return self.value(body, inner, depth + 1)
            return self.skip(body, depth + 1)
        # A value sent where the receiver has made it optional.
        nullable = isinstance(inner, Opt) or inner in (NULL, RESERVED)
        if not nullable and self.subtype(reference, inner):
            return self.value(reference, inner, depth + 1)
        return self.skip(reference, depth + 1)

    def pick(self, body: list[tuple[int, int]]) -> tuple[int, int]:
        index = self.unsigned()
        if index >= len(body):
            raise CandidError(f"variant index {index} of {len(body)}")
        return body[index]

    def vector(self, reference: int, inner: Type | None, depth: int) -> Any:
        """Read a vector; with `inner` None, elements are read as they were sent."""
        count = self.unsigned()
        if reference in FIXED and not isinstance(inner, Opt) and inner != RESERVED:
            raw = self.take(count * SIZE[reference])
            if reference == NAT8.code:
                return raw
            return list(struct.unpack(f"<{count}{FIXED[reference]}", raw))
        if count > self.budget:
            raise CandidError(f"a vector of {count} elements in {len(self.data)} bytes")
        if inner is None:
            return [self.any_value(reference, depth + 1) for _ in range(count)]
        return [self.value(reference, inner, depth + 1) for _ in range(count)]

    def plain(self, opcode: int) -> Any:
        """Read a value of a primitive type or a reference."""
        if opcode in FIXED:
            return struct.unpack("<" + FIXED[opcode], self.take(SIZE[opcode]))[0]
        if opcode == TEXT.code:
            return self.text()
        if opcode == BOOL.code:
            return self.flag()
        if opcode == NAT.code:
            return self.unsigned(MAX_NUMBER_BYTES)
        if opcode == INT.code:
            return self.signed(MAX_NUMBER_BYTES)
        if opcode in (NULL.code, RESERVED.code):
            return None
        if opcode == FUNC:
            if not self.flag():
                raise CandidError("an opaque reference")
            return self.plain(PRINCIPAL.code), self.text()
        if opcode in (PRINCIPAL.code, SERVICE):
            if not self.flag():
                raise CandidError("an opaque reference")
            length = self.unsigned()
            if length > 29:
                raise CandidError(f"a principal of {length} bytes")
            return self.take(length)
        raise CandidError("a value of type empty")

    def any_value(self, reference: int, depth: int) -> Any:
        """Read a value by its wire type alone."""
        self.enter(depth)
        opcode, body = self.resolve(reference)
        if opcode == OPT:
            return self.any_value(body, depth + 1) if self.flag() else None
        if opcode == VEC:
            return self.vector(body, None, depth)
        if opcode == RECORD:
            return {
                self.names.get(number, number): self.any_value(inner, depth + 1)
                for number, inner in body
            }
        if opcode == VARIANT:
            number, inner = self.pick(body)
            return {self.names.get(number, number): self.any_value(inner, depth + 1)}
        return self.plain(opcode)

    def skip(self, reference: int, depth: int) -> None:
        """Pass over a value that nobody asked for; it must be well-formed all the same."""
        self.any_value(reference, depth)

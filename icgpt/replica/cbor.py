"""A strict reader for the CBOR that clients send: maps, arrays, bytes, text, integers, null.

Requests come from anyone, so depth and the number of items are capped, duplicate keys, unknown
tags and every other extension are refused, and lengths are checked before anything is made.
See RFC 8949.
"""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 16
MAX_ITEMS = 50_000
_SELF_DESCRIBED = 55_799
_BREAK = object()


class CborError(ValueError):
    """The bytes are not CBOR of the accepted kind."""


def loads(data: bytes) -> Any:
    """Read exactly one value."""
    reader = _Reader(data)
    value = reader.value(0)
    if value is _BREAK:
        raise CborError("a break without anything to end")
    if reader.at != len(data):
        raise CborError(f"{len(data) - reader.at} bytes left over")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.items = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise CborError("unexpected end of data")
        self.at += count
        return self.data[self.at - count : self.at]

    def value(self, depth: int) -> Any:
        self.items += 1
        if depth > MAX_DEPTH or self.items > MAX_ITEMS:
            raise CborError("nested too deeply" if depth > MAX_DEPTH else "too many items")
        head = self.take(1)[0]
        major, detail = head >> 5, head & 31
        if major == 7:
            return self.simple(head)
        argument = self.argument(detail, major)
        if major == 0 and argument is not None:
            return argument
        if major == 1 and argument is not None:
            return -1 - argument
        if major in (2, 3):
            return self.string(major, argument, depth)
        if major == 4:
            return self.array(argument, depth)
        if major == 5:
            return self.mapping(argument, depth)
        if argument == _SELF_DESCRIBED:
            return self.value(depth + 1)
        raise CborError(f"unexpected tag {argument}")

    def argument(self, detail: int, major: int) -> int | None:
        if detail < 24:
            return detail
        if detail <= 27:
            return int.from_bytes(self.take(1 << (detail - 24)), "big")
        if detail == 31 and major in (2, 3, 4, 5):
            return None  # of indefinite length
        raise CborError(f"reserved length {detail}")

    def simple(self, head: int) -> Any:
        if head == 0xFF:
            return _BREAK
        if head in (0xF6, 0xF7):
            return None
        if head in (0xF4, 0xF5):
            return head == 0xF5
        raise CborError("floats and other simple values are not expected")

    def string(self, major: int, length: int | None, depth: int) -> bytes | str:
        if length is None:
            return self.chunks(b"" if major == 2 else "", depth)
        raw = self.take(length)
        if major == 2:
            return raw
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise CborError("text that is no UTF-8") from error

    def chunks(self, joined: bytes | str, depth: int) -> bytes | str:
        parts: list[Any] = []
        while (part := self.value(depth + 1)) is not _BREAK:
            if not isinstance(part, type(joined)):
                raise CborError("a string is made of strings")
            parts.append(part)
        return joined[:0].join(parts)

    def array(self, length: int | None, depth: int) -> list[Any]:
        items: list[Any] = []
        while length is None or len(items) < length:
            item = self.value(depth + 1)
            if item is _BREAK:
                if length is not None:
                    raise CborError("a break within an array")
                break
            items.append(item)
        return items

    def mapping(self, length: int | None, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while length is None or len(entries) < length:
            key = self.value(depth + 1)
            if key is _BREAK and length is None:
                break
            if not isinstance(key, str) or key in entries:
                raise CborError("keys are text, each of them once")
            value = self.value(depth + 1)
            if value is _BREAK:
                raise CborError("a break within a map")
            entries[key] = value
        return entries

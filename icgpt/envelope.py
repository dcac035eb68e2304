"""Signed requests in CBOR, as they go over the wire.

A message may carry 2 MB, and cbor2 takes several times as long to write them as to copy them. So
what is large is put between the parts that cbor2 has written.
"""

from __future__ import annotations

from typing import Any, Final

import cbor2

from icgpt.identity import Identity
from icgpt.request_id import hash_of_map

_LARGE: Final = 1 << 16  # from this length on, CBOR takes four bytes for it
_MAP: Final = 0xA0  # the head of a map of up to 23 entries is this and their number
_BYTES_HEAD: Final = b"\x5a"


def sign(content: dict[str, Any], identity: Identity) -> tuple[bytes, bytes]:
    """Request id and signed envelope."""
    request_id = hash_of_map(content)
    signature = identity.sign(b"\x0aic-request" + request_id)
    return request_id, _with_entry(signature, b"\x67content", [_map(content)])


def _map(content: dict[str, Any]) -> bytes:
    arg = content.get("arg", b"")
    if len(arg) < _LARGE:
        return cbor2.dumps(content)
    rest = {key: value for key, value in content.items() if key != "arg"}
    return _with_entry(rest, b"\x63arg", [_BYTES_HEAD, len(arg).to_bytes(4, "big"), arg])


def _with_entry(entries: dict[str, Any], key: bytes, value: list[bytes]) -> bytes:
    """A map with one entry more, whose key and value are in CBOR already."""
    small = cbor2.dumps(entries)
    return b"".join([bytes([_MAP + len(entries) + 1]), small[1:], key, *value])

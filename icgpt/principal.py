"""Principals: the identifiers of users and canisters, as raw bytes and as text.

The text form is base32 of a CRC-32 followed by the bytes, in groups of five characters.
See https://internetcomputer.org/docs/references/ic-interface-spec#principal.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib

MAX_LENGTH = 29
ANONYMOUS = b"\x04"
MANAGEMENT = b""


def to_text(raw: bytes) -> str:
    """Write a principal as text, for example ``2vxsx-fae`` for the anonymous one."""
    if len(raw) > MAX_LENGTH:
        raise ValueError(f"a principal has at most {MAX_LENGTH} bytes, not {len(raw)}")
    text = base64.b32encode(zlib.crc32(raw).to_bytes(4, "big") + raw).decode().lower().rstrip("=")
    return "-".join(text[i : i + 5] for i in range(0, len(text), 5))


def from_text(text: str) -> bytes:
    """Read a principal's text form; ValueError unless it is just what `to_text` writes."""
    if len(text) > 63:
        raise ValueError(f"not a principal: {text[:20]!r}… is too long")
    packed = text.replace("-", "").upper()
    try:
        decoded = base64.b32decode(packed + "=" * (-len(packed) % 8))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not a principal: {text!r}") from error
    if len(decoded) < 4:
        raise ValueError(f"not a principal: {text!r} is too short")
    raw = decoded[4:]
    if zlib.crc32(raw).to_bytes(4, "big") != decoded[:4]:
        raise ValueError(f"not a principal: {text!r} has a wrong checksum; is there a typo in it?")
    if to_text(raw) != text:
        raise ValueError(f"not a principal: {text!r} should be written {to_text(raw)!r}")
    return raw


def self_authenticating(der_public_key: bytes) -> bytes:
    """Return the principal of whoever holds the private key to this DER-encoded public key."""
    return hashlib.sha224(der_public_key).digest() + b"\x02"

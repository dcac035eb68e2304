"""The representation-independent hash by which requests are named and answers are signed.

Specification: https://internetcomputer.org/docs/references/ic-interface-spec#hash-of-map
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from icgpt.candid.types import unsigned_leb128
from icgpt.errors import VerificationError


def hash_of_map(value: Mapping[str, Any]) -> bytes:
    """The hash of a map of texts, bytes, natural numbers, lists and maps."""
    pairs = [
        hashlib.sha256(name.encode()).digest() + _hash_of_value(item)
        for name, item in value.items()
    ]
    return hashlib.sha256(b"".join(sorted(pairs))).digest()


def _hash_of_value(value: Any) -> bytes:
    match value:
        case bytes():
            data = value
        case str():
            data = value.encode()
        case bool():
            raise VerificationError("an answer holds a value that can't be hashed")
        case int() if value >= 0:
            data = unsigned_leb128(value)
        case dict():
            return hash_of_map(value)
        case list():
            data = b"".join(_hash_of_value(one) for one in value)
        case _:
            raise VerificationError("an answer holds a value that can't be hashed")
    return hashlib.sha256(data).digest()

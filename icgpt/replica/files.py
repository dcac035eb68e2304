"""Small files that must never be half written, and secrets that only their owner may read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(file: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file by way of a temporary one, so that a reader sees the old or the new."""
    temporary = file.with_name(file.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    temporary.replace(file)


def read_or_create_secret(file: Path, size: int) -> bytes:
    """Return the random bytes kept in a file, drawing them the first time."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        data = secrets.token_bytes(size)
        write_atomically(file, data, 0o600)
    if len(data) != size:
        raise ValueError(f"{file} should hold {size} bytes; remove it to start with a new key")
    return data

"""Copies of sparse files, and secrets that only their owner may read."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from icgpt.files import write_atomically

_COPY_AT_ONCE = 1 << 24


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes and leave its holes holes."""
    with source.open("rb") as read, target.open("wb") as write:
        copy_bytes(read.fileno(), write.fileno(), os.fstat(read.fileno()).st_size)


def copy_bytes(source: int, target: int, size: int) -> None:
    """Copy the first `size` bytes of an open file into an empty one; holes stay holes."""
    os.ftruncate(target, size)
    at = 0
    while at < size:
        end = size
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
            end = min(os.lseek(source, at, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no more data up to the end
                return
            # Another error comes from a file system that knows of no holes: copy all.
        while at < end:
            data = os.pread(source, min(_COPY_AT_ONCE, end - at), at)
            at += os.pwrite(target, data, at)


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

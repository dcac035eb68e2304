"""The redo journal of a canister's folder: a commit is whole, wherever the process dies.

Bytes that a message overwrites are first written here, with the record that is to come into force;
then the mark at the head, which makes them count; and only then where they belong. Whoever finds a
marked journal that is newer than the record does the same once more. Memory that a message has
added needs no copy: the sizes in the record decide whether it counts. So a commit costs some 15
microseconds more, and what it overwrites is written twice, 500 MB in half a second more. All this
holds against a killed process; against a power failure only when asked to wait for the disk.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from icgpt.replica import pages

_MAGIC = b"icgptj2\n"
_MARK = struct.Struct("<8sQQQQI")  # magic, number, bytes of record and note, pieces, checksum
_PIECE = struct.Struct("<BQQ")  # file, offset, size
_BODY = 64  # where the record begins; then the note, the pieces' table, and their bytes
_AT_ONCE = 1000  # buffers in one system call; the least that systems allow is 1024
_COPY = 1 << 24
_KEPT = 8 << 20  # bytes of a journal that stay allocated between commits

HEAP, STABLE = 0, 1


@dataclass(frozen=True)
class Piece:
    """Bytes in memory, and where in which file they are to go."""

    file: int
    offset: int
    address: int
    size: int


class Journal:
    """The journal file; made when it is not there."""

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        self._path = path
        self._sync = sync
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._written = 0

    def write(self, number: int, record: bytes, pieces: list[Piece], note: bytes) -> None:
        """Write a commit down; once this returns, it will happen.

        `note` is for whoever asks after a crash what the commit was about.
        """
        table = b"".join(_PIECE.pack(p.file, p.offset, p.size) for p in pieces)
        body = record + note + table
        at = _BODY
        for buffers in _batches(
            [memoryview(body), *(pages.view(p.address, p.size) for p in pieces)]
        ):
            size = sum(map(len, buffers))
            if os.pwritev(self._fd, buffers, at) != size:
                raise OSError("the journal could not be written; is the disk full?")
            at += size
        self._written = at
        head = _MARK.pack(_MAGIC, number, len(record), len(note), len(pieces), 0)[:-4]
        mark = head + struct.pack("<I", zlib.crc32(head + body))
        pages.write_all(self._fd, memoryview(mark), 0)
        if self._sync:
            os.fsync(self._fd)

    def read(self) -> tuple[int, bytes, bytes] | None:
        """Number, record and note of the commit that is written down; None when none is."""
        known = self._head()
        return None if known is None else known[:3]

    def redo(self, files: tuple[int, int]) -> None:
        """Write the pieces into heap and stable file."""
        known = self._head()
        if known is None:
            return
        _, record, note, table = known
        at = _BODY + len(record) + len(note) + len(table)
        for file, offset, size in _PIECE.iter_unpack(table):
            for start in range(0, size, _COPY):
                data = os.pread(self._fd, min(_COPY, size - start), at + start)
                pages.write_all(files[file], memoryview(data), offset + start)
            at += size

    def trim(self) -> None:
        """Give the space of a large commit back. To be called once its record is in force."""
        if self._written > _KEPT:
            os.ftruncate(self._fd, 0)

    def close(self, *, keep: bool) -> None:
        """Close, and remove the file unless its commit has still to be done."""
        os.close(self._fd)
        if not keep:
            self._path.unlink(missing_ok=True)

    def _head(self) -> tuple[int, bytes, bytes, bytes] | None:
        mark = os.pread(self._fd, _MARK.size, 0)
        if len(mark) < _MARK.size:
            return None
        magic, number, length, noted, count, checksum = _MARK.unpack(mark)
        size = os.fstat(self._fd).st_size
        if magic != _MAGIC or length > size or noted > size or count > size:
            return None
        body = os.pread(self._fd, length + noted + count * _PIECE.size, _BODY)
        if zlib.crc32(mark[:-4] + body) != checksum:
            return None
        end = length + noted
        return number, body[:length], body[length:end], body[end:]


def _batches(buffers: list[memoryview]) -> Iterator[list[memoryview]]:
    """Put buffers together for as few system calls as there can be."""
    batch: list[memoryview] = []
    size = 0
    for buffer in buffers:
        for start in range(0, len(buffer), pages.WRITE_AT_MOST):
            part = buffer[start : start + pages.WRITE_AT_MOST]
            if len(batch) == _AT_ONCE or size + len(part) > pages.WRITE_AT_MOST:
                yield batch
                batch, size = [], 0
            batch.append(part)
            size += len(part)
    yield batch

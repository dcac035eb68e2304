"""The files of one canister, and the small record that says which of them are in force.

`state` names the current module, heap and stable files and holds sizes, globals and a checksum.
It is written last, in one place: files that it does not name, and bytes past the sizes that it
gives, are left over from work that was never committed, and go away at the next start.
"""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"icgptc1\n"
_HEAD = struct.Struct("<8sIQQQQI")  # magic, length, module, stable, heap bytes, pages, globals
_GLOBAL = struct.Struct("<IB16s")

SavedGlobal = tuple[int, int, bytes]  # index, kind and raw value as wasmtime has them


class DamagedState(Exception):  # noqa: N818 - says what is wrong with the folder
    """The state record can't be read; the network's state has to be reset."""


@dataclass(frozen=True)
class Record:
    """What is committed. `module` numbers the module and heap files; 0 means none installed."""

    module: int = 0
    stable: int = 0
    heap_bytes: int = 0
    stable_pages: int = 0
    globals: tuple[SavedGlobal, ...] = ()

    def pack(self) -> bytes:
        """The record as bytes, with length and checksum."""
        body = b"".join(_GLOBAL.pack(*item) for item in self.globals)
        head = _HEAD.pack(
            _MAGIC,
            _HEAD.size + len(body) + 4,
            self.module,
            self.stable,
            self.heap_bytes,
            self.stable_pages,
            len(self.globals),
        )
        return head + body + struct.pack("<I", zlib.crc32(head + body))

    @classmethod
    def unpack(cls, data: bytes) -> Record:
        """Read a record; what follows it in the file is ignored."""
        if len(data) < _HEAD.size:
            raise DamagedState("the state record is truncated")
        magic, length, module, stable, heap, pages, count = _HEAD.unpack_from(data)
        if magic != _MAGIC or length != _HEAD.size + count * _GLOBAL.size + 4 or length > len(data):
            raise DamagedState("the state record is damaged")
        if struct.unpack_from("<I", data, length - 4) != (zlib.crc32(data[: length - 4]),):
            raise DamagedState("the state record has a wrong checksum")
        items = tuple(
            _GLOBAL.unpack_from(data, _HEAD.size + i * _GLOBAL.size) for i in range(count)
        )
        return cls(module, stable, heap, pages, items)


class Folder:
    """A canister's folder, made if it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._state = os.open(path / "state", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        data = os.pread(self._state, os.fstat(self._state).st_size, 0)
        self.record = Record.unpack(data) if data else Record()
        self.clean()

    def commit(self, record: Record) -> None:
        """Put a record in force."""
        os.pwrite(self._state, record.pack(), 0)
        self.record = record

    def clean(self, also: str = "") -> None:
        """Remove the files that the record does not name, but for one in use."""
        keep = {"state", also}
        if self.record.module:
            keep |= {f"module-{self.record.module}", f"heap-{self.record.module}"}
        if self.record.stable:
            keep.add(f"stable-{self.record.stable}")
        for entry in self.path.iterdir():
            if entry.name not in keep and entry.is_file():
                entry.unlink(missing_ok=True)

    def next_number(self) -> int:
        """A number that no file in force has."""
        return max(self.record.module, self.record.stable) + 1

    def read_module(self) -> bytes:
        """The module in force, as it was uploaded."""
        return (self.path / f"module-{self.record.module}").read_bytes()

    def write_module(self, number: int, upload: bytes) -> None:
        """Keep a module that may come into force."""
        (self.path / f"module-{number}").write_bytes(upload)

    def open(self, kind: str, number: int, size: int) -> int:
        """Open the heap or stable file of a number, cut to what is committed."""
        path = self.path / f"{kind}-{number}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, size)
        return fd

    def close(self) -> None:
        """Close the record."""
        if self._state >= 0:
            os.fsync(self._state)
            os.close(self._state)
            self._state = -1

    def delete(self) -> None:
        """Remove the folder and all in it."""
        self.close()
        shutil.rmtree(self.path)

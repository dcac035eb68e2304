"""The files of one canister, and the small record that says which of them are in force.

`state` names the current module, heap and stable files and holds sizes, globals and a checksum.
It is written last, in one place: files that it does not name, and bytes past the sizes that it
gives, are left over from work that was never committed, and go away at the next start. What a
commit overwrites goes through the `journal` first, so that a killed process leaves it whole.
"""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from icgpt.replica.journal import HEAP, STABLE, Journal, Piece
from icgpt.replica.pages import write_all

_MAGIC = b"icgptc2\n"  # with the version of the format
_HEAD = struct.Struct("<8sIQQQQQI")  # magic, length, and the record's fields
_GLOBAL = struct.Struct("<IB16s")

SavedGlobal = tuple[int, int, bytes]  # index, kind and raw value as wasmtime has them


class DamagedState(Exception):  # noqa: N818 - says what is wrong with the folder
    """What is on disk can't be used; the network's state has to be reset."""


@dataclass(frozen=True)
class Record:
    """What is committed. `module` numbers the module and heap files; 0 means none installed."""

    number: int = 0  # of the commit
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
            self.number,
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
        magic, length, number, module, stable, heap, pages, count = _HEAD.unpack_from(data)
        if magic != _MAGIC and magic[:6] == _MAGIC[:6]:
            raise DamagedState("the state record is of another version")
        if magic != _MAGIC or length != _HEAD.size + count * _GLOBAL.size + 4 or length > len(data):
            raise DamagedState("the state record is damaged")
        if struct.unpack_from("<I", data, length - 4) != (zlib.crc32(data[: length - 4]),):
            raise DamagedState("the state record has a wrong checksum")
        items = tuple(
            _GLOBAL.unpack_from(data, _HEAD.size + i * _GLOBAL.size) for i in range(count)
        )
        return cls(number, module, stable, heap, pages, items)


def has_record(path: Path) -> bool:
    """Tell whether anything was ever committed in a canister's folder."""
    state = path / "state"
    return state.is_file() and state.stat().st_size > 0


class Folder:
    """A canister's folder, made if it is not there."""

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        self.path = path
        self.note = b""  # of the last commit, as found on disk
        path.mkdir(parents=True, exist_ok=True)
        self._state = os.open(path / "state", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._journal = Journal(path / "journal", sync=sync)
        self.unfinished = False
        try:
            self.record = self._read()
            self.redo()
        except BaseException:
            os.close(self._state)
            self._journal.close(keep=True)
            raise
        self.clean()

    def _read(self) -> Record:
        """The record in force; that of an unfinished commit, if there is one."""
        data = os.pread(self._state, os.fstat(self._state).st_size, 0)
        written = self._journal.read()
        try:
            record = Record.unpack(data) if data else Record()
        except DamagedState:
            if written is None:
                raise
            record = Record()  # torn, so the journal has what was being written
        if written is not None and written[0] >= record.number:
            self.note = written[2]
        if written is not None and written[0] > record.number:
            self.unfinished = True
            return Record.unpack(written[1])
        return record

    def redo(self) -> None:
        """Do a commit again that was cut off."""
        if not self.unfinished:
            return
        files = tuple(
            os.open(self.path / f"{kind}-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            for kind, number in (("heap", self.record.module), ("stable", self.record.stable))
        )
        try:
            self._journal.redo((files[HEAP], files[STABLE]))
        finally:
            for fd in files:
                os.close(fd)
        write_all(self._state, memoryview(self.record.pack()), 0)
        self.unfinished = False

    def begin(self, record: Record, overwritten: list[Piece], note: bytes = b"") -> None:
        """Write down what is about to be overwritten: from here on the record counts."""
        record = replace(record, number=self.record.number + 1)
        self._journal.write(record.number, record.pack(), overwritten, note)
        self.record, self.unfinished = record, True

    def finish(self) -> None:
        """Put the record in force, as the files hold all of its memory now."""
        write_all(self._state, memoryview(self.record.pack()), 0)
        self.unfinished = False

    def settle(self) -> None:
        """Give the journal's space back, as the last commit's note is known elsewhere by now."""
        if not self.unfinished:
            self._journal.trim()

    def clean(self, also: str = "") -> None:
        """Remove the files that the record does not name, but for one in use."""
        keep = {"state", "journal", also}
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
        found = os.fstat(fd).st_size
        if found < size:
            os.close(fd)
            raise DamagedState(f"{path.name} has {found} bytes of {size}")
        os.ftruncate(fd, size)
        return fd

    def close(self) -> None:
        """Close the record; the journal stays only if it has work left to do."""
        if self._state >= 0:
            os.fsync(self._state)
            os.close(self._state)
            self._state = -1
            self._journal.close(keep=self.unfinished)

    def delete(self) -> None:
        """Remove the folder and all in it."""
        self.close()
        shutil.rmtree(self.path)

"""One instance of the engine's module, and the calls on it.

A call takes numbers and bytes, and gives a status and bytes. While it runs, it may read from the
`Source` and write to the `Sink` that it was lent. An instance belongs to one thread at a time.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import wasmtime

from icgpt.engine.errors import EngineError, EngineMemoryError, failure
from icgpt.engine.module import RESERVED, load_module, runtime
from icgpt.errors import CheckpointError

Sink = Callable[[memoryview], None]
"""Takes bytes for the end of a file. They are only there until it returns."""

_HUGEPAGE = 14
_I32, _I64 = wasmtime.ValType.i32(), wasmtime.ValType.i64()


class Source(Protocol):
    """A file to read from, wherever it lies."""

    @property
    def length(self) -> int:
        """Its length in bytes."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the buffer with the bytes from an offset on; raises when they are not there."""


class FileSource:
    """A file on disk. To be closed, or used in a `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb", buffering=0)
            self.length = self._file.seek(0, 2)
        except OSError as error:
            raise CheckpointError(f"can't read {path}: {error.strerror}") from error

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the buffer; CheckpointError where the file has become shorter."""
        try:
            self._file.seek(offset)
            while len(buffer):
                count = self._file.readinto(buffer)
                if not count:
                    raise CheckpointError(f"{self._path} grew shorter while it was read")
                buffer = buffer[count:]
        except OSError as error:
            raise CheckpointError(f"can't read {self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Instance:
    """A fresh engine with a memory of its own."""

    def __init__(self) -> None:
        self.source: Source | None = None
        self.sink: Sink | None = None
        self._broken = self._closed = False
        self._store = wasmtime.Store(runtime())
        linker = wasmtime.Linker(runtime())
        read = wasmtime.FuncType([_I64, _I32, _I32], [])
        write = wasmtime.FuncType([_I32, _I32], [_I32])
        linker.define_func("host", "read", read, self._read)
        linker.define_func("host", "write", write, self._write)
        self._exports = linker.instantiate(self._store, load_module()).exports(self._store)
        memory = self._exports["memory"]
        if not isinstance(memory, wasmtime.Memory):
            raise EngineError("the engine's module has no memory", "Run ./scripts/build-canister.")
        self._memory = memory

    def call(self, name: str, *numbers: int, data: bytes | None = None) -> tuple[int, bytes]:
        """Calls an export; gives its status and its answer. Raises what the failure stands for."""
        if self._broken:
            raise EngineError("this engine failed before", "Load it again.")
        if data is not None:
            start = self._run("input", len(data))
            if not start:
                raise EngineMemoryError(f"no memory for a request of {len(data):,} bytes")
            self._view(start, len(data))[:] = data
        status = self._run(name, *numbers)
        answer = bytes(self._view(self._run("answer"), self._run("answer_len")))
        if status < 0:
            raise failure(status, answer.decode(errors="replace"))
        return status, answer

    def close(self) -> None:
        """Give the memory back."""
        self._broken = True
        if not self._closed:
            self._closed = True
            self._store.close()

    def prefer_large_pages(self) -> None:
        """Ask for large pages, since a model is read whole for each token.

        Where the system has none, nothing changes.
        """
        libc = ctypes.CDLL(None)
        if hasattr(libc, "madvise") and sys.platform == "linux":
            libc.madvise(ctypes.c_void_p(self._base()), ctypes.c_size_t(RESERVED), _HUGEPAGE)

    def memory(self) -> int:
        """Bytes of memory that the instance has."""
        return self._memory.data_len(self._store)

    def _run(self, name: str, *numbers: int) -> int:
        function: Any = self._exports[name]
        try:
            result: int | None = function(self._store, *numbers)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            self._broken = True
            raise EngineError(f"the engine failed: {error}", "Load it again.") from error
        except BaseException:  # of what was lent, or an interrupt: the call was cut off
            self._broken = True
            raise
        return (result or 0) & 0xFFFFFFFF if name in ("input", "answer") else result or 0

    def _view(self, start: int, length: int) -> memoryview:
        if length == 0:
            return memoryview(bytearray())
        return memoryview((ctypes.c_ubyte * length).from_address(self._base() + start)).cast("B")

    def _base(self) -> int:
        return ctypes.addressof(self._memory.data_ptr(self._store).contents)

    def _read(self, offset: int, start: int, length: int) -> None:
        if self.source is None:
            raise EngineError("the engine asked for a file that it was not lent")
        self.source.read_into(offset, self._view(start & 0xFFFFFFFF, length))

    def _write(self, start: int, length: int) -> int:
        if self.sink is None:
            raise EngineError("the engine wrote to a file that it was not lent")
        self.sink(self._view(start & 0xFFFFFFFF, length))
        return 1

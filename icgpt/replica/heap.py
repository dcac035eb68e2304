"""A canister's linear memory: committed pages in a file, a message's changes in private copies.

Wasmtime asks a host-memory creator for the memory of each instance; ours gives a private mapping of
the canister's heap file (32-bit addresses, so 4 GiB of address space and a guard behind them that
faults). Memory grown since the last commit is plain zero pages, and joins the file at the commit.
The file always reaches to the end of what is mapped from it: touching a page past a file's end
would kill the process.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from icgpt.replica import pages

WASM_PAGE = 1 << 16
MAX_HEAP = 1 << 32

_dirty_pages = pages.DirtyPages()
_Finalizer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Heap:
    """The memory of one instance. `base` stays the same for its whole life."""

    def __init__(self, fd: int, committed: int, minimum: int, reserved: int) -> None:
        self.fd = fd
        self.committed = committed
        self.size = max(committed, minimum)
        self._reserved = max(reserved, self.size)
        self.base = pages.reserve(self._reserved, WASM_PAGE)
        try:
            if committed:
                pages.map_private(self.base, committed, fd, 0)
            if self.size > committed:
                pages.map_zeros(self.base + committed, self.size - committed)
            pages.small(self.base, self.size)
        except OSError:
            self.release()
            raise

    def grow(self, size: int) -> None:
        """Make the memory larger, by zeros."""
        if size > self.size:
            if size > min(MAX_HEAP, self._reserved):
                raise OSError("the heap can't grow past 4 GiB")
            pages.map_zeros(self.base + self.size, size - self.size)
            pages.small(self.base + self.size, size - self.size)
            self.size = size

    def stage(self) -> list[pages.Range]:
        """Write what has been added into the file; gives the committed bytes that have changed."""
        changed = _dirty_pages.find(self.base, self.size, self.fd, self.committed)
        before = self.committed
        if self.size > before:
            os.ftruncate(self.fd, before)  # what a commit that failed has left
            os.ftruncate(self.fd, self.size)
            added = [(max(a, before), b) for a, b in changed if b > before]
            pages.write_back(self.base, added, self.fd)
        return [(a, min(b, before)) for a, b in changed if a < before]

    def commit(self, changed: list[pages.Range]) -> None:
        """Write what `stage` gave into the file, and show the file again."""
        before = self.committed
        pages.write_back(self.base, changed, self.fd)
        pages.forget(self.base, changed, self.fd)
        if self.size > before:
            pages.map_private(self.base + before, self.size - before, self.fd, before)
            pages.small(self.base + before, self.size - before)
            self.committed = self.size

    def watch(self) -> None:
        """Forget what was touched so far. All changes must have been committed or undone."""
        pages.drop(self.base, self.size)

    def touched(self, unit: int) -> tuple[int, int]:
        """Pages of `unit` bytes that were accessed since `watch`, and that were written.

        Exact on Linux for Wasm pages: with a page of a file that is read, the kernel maps others of
        the same aligned 64 KiB at most, and `base` is aligned. An exception is where memory is so
        short that the kernel takes pages of files away while a message runs. Where the system
        doesn't tell what was read, what was written counts.
        """
        written = _dirty_pages.find(self.base, self.size, self.fd, self.committed)
        accessed = _dirty_pages.resident(self.base, self.size)
        count = pages.count(written, unit)
        return count if accessed is None else pages.count(accessed, unit), count

    def rollback(self) -> bool:
        """Undo what has changed since the commit; False if a fresh instance is needed for it."""
        if self.size != self.committed:
            return False
        changed = _dirty_pages.find(self.base, self.size, self.fd, self.committed)
        pages.forget(self.base, changed, self.fd)
        return True

    def release(self) -> None:
        """Give the address space back."""
        if self.base:
            pages.unmap(self.base, self._reserved)
            self.base = 0


class _Request(threading.local):
    """What the next instance in this thread is to have as its memory."""

    fd: int = -1
    committed: int = 0
    made: Heap | None = None


_request = _Request()
_heaps: dict[int, Heap] = {}
_lock = threading.Lock()
_last = 0


def expect(fd: int, committed: int) -> None:
    """Announce the heap file of the instance that this thread is about to make."""
    _request.fd, _request.committed, _request.made = fd, committed, None


def made() -> Heap:
    """The heap that the instance just made has got."""
    heap, _request.made, _request.fd = _request.made, None, -1
    if heap is None:
        raise RuntimeError("the module has no memory; metering gives it one")
    return heap


def _refusal(error: Exception) -> int:
    text = str(error).encode()
    pointer = ffi.wasmtime_error_new(ctypes.create_string_buffer(text))
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


@ffi.wasmtime_memory_get_callback_t  # type: ignore[untyped-decorator, unused-ignore]
def _get(env: int, size: Any, capacity: Any) -> int:
    heap = _heaps[env]
    size[0] = heap.size
    capacity[0] = MAX_HEAP
    return heap.base


@ffi.wasmtime_memory_grow_callback_t  # type: ignore[untyped-decorator, unused-ignore]
def _grow(env: int, size: int) -> int:
    try:
        _heaps[env].grow(size)
    except (OSError, KeyError) as error:
        return _refusal(error)
    return 0


@_Finalizer  # type: ignore[untyped-decorator, unused-ignore]
def _finalize(env: int) -> None:
    with _lock:
        heap = _heaps.pop(env, None)
    if heap is not None:
        heap.release()


@ffi.wasmtime_new_memory_callback_t  # type: ignore[untyped-decorator, unused-ignore]
def _new(
    _env: int, _type: Any, minimum: int, _maximum: int, reserved: int, guard: int, memory: Any
) -> int:
    global _last
    try:
        if _request.fd < 0:
            raise OSError("a memory was asked for outside of a canister")
        size = max(reserved, MAX_HEAP) + guard
        heap = Heap(_request.fd, _request.committed, minimum, size)
    except OSError as error:
        return _refusal(error)
    with _lock:
        _last += 1
        key = _last
        _heaps[key] = heap
    _request.made = heap
    memory[0].env = key
    memory[0].get_memory = _get
    memory[0].grow_memory = _grow
    memory[0].finalizer = _finalize
    return 0


_creator = ffi.wasmtime_memory_creator_t()
_creator.env = 0
_creator.new_memory = _new
_creator.finalizer = _Finalizer(0)


def use_heaps(config: wasmtime.Config) -> None:
    """Make an engine's instances take their memory from here."""
    ffi.wasmtime_config_host_memory_creator_set(config.ptr(), ctypes.byref(_creator))

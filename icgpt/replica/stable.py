"""A canister's stable memory: a sparse file of up to 500 GiB, changed by one message at a time.

Reads and overwrites go through private mappings of 16 GiB windows, made when first touched, so that
no address space is held for what is not used; the pages that a message overwrites are remembered,
written into the file by the commit and dropped by a rollback. What a message writes into memory
that it has grown itself goes straight into the file: a rollback cuts the file off again, and so
does the next start after a crash, because the committed size is kept elsewhere.
"""

from __future__ import annotations

import ctypes
import os

from icgpt.replica import pages
from icgpt.replica.pages import PAGE

WASM_PAGE = 1 << 16
MAX_PAGES = (500 << 30) // WASM_PAGE
WINDOW = 1 << 34

_FEW = 16  # pages up to which they are remembered one by one


class StableMemory:
    """Committed size and file in, reads and writes by address of the canister's heap."""

    def __init__(self, fd: int, pages_committed: int) -> None:
        self.fd = fd
        self.pages = pages_committed
        self._committed = pages_committed * WASM_PAGE  # bytes
        self._windows: dict[int, int] = {}
        self._overwritten: set[int] = set()
        self._ranges: list[tuple[int, int]] = []  # of pages, for long writes
        os.ftruncate(fd, self._committed)

    @property
    def size(self) -> int:
        """Bytes, changes of the current message included."""
        return self.pages * WASM_PAGE

    @property
    def grown(self) -> int:
        """Bytes that the current message has added."""
        return self.size - self._committed

    def grow(self, additional: int) -> int:
        """Add Wasm pages; gives the old number of pages, or -1."""
        before = self.pages
        if additional > MAX_PAGES - before:
            return -1
        try:
            os.ftruncate(self.fd, (before + additional) * WASM_PAGE)
        except OSError:
            return -1
        self.pages = before + additional
        return before

    def read(self, target: int, offset: int, size: int) -> None:
        """Copy `size` bytes at `offset`, which the caller has checked, to the address `target`."""
        base = self._windows.get(offset // WINDOW)
        if base is not None and offset % WINDOW + size <= WINDOW:  # as nearly always
            ctypes.memmove(target, base + offset % WINDOW, size)
            return
        while size:
            inside = offset % WINDOW
            step = min(size, WINDOW - inside)
            ctypes.memmove(target, self._window(offset // WINDOW) + inside, step)
            target, offset, size = target + step, offset + step, size - step

    def write(self, offset: int, source: int, size: int) -> None:
        """Copy `size` bytes at the address `source` to `offset`, which the caller has checked."""
        end = offset + size
        if end > self._committed:
            begin = max(offset, self._committed)
            pages.write_all(self.fd, pages.view(source + begin - offset, end - begin), begin)
            size = begin - offset
            if not size:
                return
        first, last = offset // PAGE, (offset + size - 1) // PAGE + 1
        if last - first <= _FEW:
            self._overwritten.update(range(first, last))
        else:
            self._ranges.append((first, last))
        while size:
            inside = offset % WINDOW
            step = min(size, WINDOW - inside)
            ctypes.memmove(self._window(offset // WINDOW) + inside, source, step)
            source, offset, size = source + step, offset + step, size - step

    def changes(self) -> list[tuple[int, int, int]]:
        """Committed bytes that have been overwritten: their offsets, addresses and sizes."""
        return [
            (index * WINDOW + first, self._windows[index] + first, last - first)
            for index, ranges in self._changes().items()
            for first, last in ranges
        ]

    def commit(self) -> None:
        """Write what has changed into the file."""
        for offset, address, size in self.changes():
            pages.write_all(self.fd, pages.view(address, size), offset)
        self._drop_copies()
        self._committed = self.size

    def rollback(self) -> None:
        """Undo what has changed since the commit."""
        self._drop_copies()
        if self.size != self._committed:
            self.pages = self._committed // WASM_PAGE
            os.ftruncate(self.fd, self._committed)

    def release(self) -> None:
        """Unmap; the file stays as it was committed."""
        for base in self._windows.values():
            pages.unmap(base, WINDOW)
        self._windows.clear()

    def _window(self, index: int) -> int:
        base = self._windows.get(index)
        if base is None:
            base = pages.map_private(None, WINDOW, self.fd, index * WINDOW)
            self._windows[index] = base
        return base

    def _drop_copies(self) -> None:
        for index, ranges in self._changes().items():
            base = self._windows[index]
            if len(ranges) > 1 << 14:  # dropping the whole window is cheaper
                ranges = [(ranges[0][0], ranges[-1][1])]
            pages.forget(base, ranges, self.fd, index * WINDOW)
        self._overwritten.clear()
        self._ranges.clear()

    def _changes(self) -> dict[int, list[tuple[int, int]]]:
        """Overwritten bytes as sorted ranges, by window and from its start."""
        if not self._overwritten and not self._ranges:
            return {}
        spans = sorted([(p, p + 1) for p in self._overwritten] + self._ranges)
        merged: list[tuple[int, int]] = []
        for first, last in spans:
            if merged and first <= merged[-1][1]:
                if last > merged[-1][1]:
                    merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        out: dict[int, list[tuple[int, int]]] = {}
        for first, last in merged:
            start, end = first * PAGE, last * PAGE
            while start < end:
                stop = min(end, (start // WINDOW + 1) * WINDOW)
                index = start // WINDOW
                out.setdefault(index, []).append((start % WINDOW, start % WINDOW + stop - start))
                start = stop
        return out

"""Private mappings of files, and which of their pages a process has written.

A `MAP_PRIVATE` mapping shows a file; the first write to a page makes a private copy. Committing
writes those copies into the file, rolling back drops them. Linux tells which pages are copies
through the PAGEMAP_SCAN ioctl (6.7 and later) or `/proc/self/pagemap`; elsewhere each page is
compared with the file. Only addresses and byte ranges live here; `heap` and `stable` use them.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import sys
from collections.abc import Callable, Iterable, Iterator

import numpy as np

PAGE = mmap.PAGESIZE
Range = tuple[int, int]  # start and end, in bytes from the start of a mapping

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

_FIXED = 0x10
_NORESERVE = 0x4000 if sys.platform == "linux" else 0x40
_DONTNEED = 4
_NOHUGEPAGE = 15
_POPULATE_WRITE = 23  # Linux 5.14 and later
_FAILED = ctypes.c_void_p(-1).value

WRITE_AT_MOST = 1 << 30  # one pwrite; Linux stops short of 2 GiB
_COMPARE_AT_ONCE = 1 << 18


def _map(address: int | None, size: int, protection: int, flags: int, fd: int, offset: int) -> int:
    result: int | None = _libc.mmap(address, size, protection, flags, fd, offset)
    if result is None or result == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"mapping {size} bytes of memory failed: {os.strerror(number)}")
    return result


def reserve(size: int, alignment: int = PAGE) -> int:
    """Reserve address space that faults when touched; `size` must be a multiple of a page."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    found = _map(None, size + alignment - PAGE, 0, flags, -1, 0)
    base = -(-found // alignment) * alignment
    if base > found:
        unmap(found, base - found)
    if found + alignment - PAGE > base:
        unmap(base + size, found + alignment - PAGE - base)
    return base


def map_private(address: int | None, size: int, fd: int, offset: int) -> int:
    """Map a part of a file for private writing; over `address` if one is given."""
    flags = mmap.MAP_PRIVATE | _NORESERVE | (_FIXED if address is not None else 0)
    return _map(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, offset)


def map_zeros(address: int, size: int) -> None:
    """Map fresh zero pages over reserved address space."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE | _FIXED
    _map(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)


def unmap(address: int, size: int) -> None:
    """Give address space back."""
    _libc.munmap(address, size)


def forget(address: int, ranges: Iterable[Range], fd: int, offset: int = 0) -> None:
    """Drop the private copies of some pages: they show the file again."""
    for start, end in _close_gaps(ranges, 16 * PAGE):
        if sys.platform == "linux":
            _libc.madvise(address + start, end - start, _DONTNEED)
        else:  # elsewhere the advice is only a hint
            map_private(address + start, end - start, fd, offset + start)


def privatise(address: int, ranges: Iterable[Range]) -> bool:
    """Make private copies of pages that so far show the file; False where the system can't.

    Nothing changes for whoever reads or writes them at the same time.
    """
    if sys.platform != "linux":
        return False
    return all(
        _libc.madvise(address + start, end - start, _POPULATE_WRITE) == 0 for start, end in ranges
    )


def drop(address: int, size: int) -> None:
    """Let a mapping without private copies start anew: none of its pages is resident any more."""
    if size and sys.platform == "linux":
        _libc.madvise(address, size, _DONTNEED)


def small(address: int, size: int) -> None:
    """Keep the kernel from using large pages here, which would hide what was touched."""
    if size and sys.platform == "linux":
        _libc.madvise(address, size, _NOHUGEPAGE)


def view(address: int, size: int) -> memoryview:
    """Memory at an address as bytes."""
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")


def write_back(address: int, ranges: Iterable[Range], fd: int) -> int:
    """Write ranges of a mapping into its file; gives the number of bytes."""
    total = 0
    for start, end in ranges:
        total += end - start
        write_all(fd, view(address + start, end - start), start)
    return total


def write_all(fd: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done : done + WRITE_AT_MOST], offset + done)


def count(ranges: Iterable[Range], unit: int) -> int:
    """How many units of so many bytes sorted ranges touch."""
    total, after = 0, 0
    for start, end in ranges:
        first = max(start // unit, after)
        last = (end - 1) // unit + 1
        total += max(last - first, 0)
        after = max(after, last)
    return total


def _close_gaps(ranges: Iterable[Range], gap: int) -> Iterator[Range]:
    """Join sorted ranges that lie close together."""
    current: Range | None = None
    for start, end in ranges:
        if current is not None and start - current[1] <= gap:
            current = (current[0], max(end, current[1]))
        else:
            if current is not None:
                yield current
            current = (start, end)
    if current is not None:
        yield current


# What the page scan asks for: categories inverted, all needed, any needed, reported. A private
# copy is neither of a file (4) nor the zero page (32); what is resident is present (8) or swapped
# out (16).
_COPIES = (36, 36, 24, 24)
_RESIDENT = (0, 0, 24, 24)


class DirtyPages:
    """Finds the private copies in a mapping by the best means that the system has."""

    def __init__(self) -> None:
        self._process = -1
        self._pagemap = -1
        self._scan = False

    def _open(self) -> None:
        """Choose the means; again in a forked process, whose pages are others."""
        self._process = os.getpid()
        self._pagemap, self._scan = -1, False
        if sys.platform == "linux":
            try:
                self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return
            self._scan = self._try_scan()

    def find(self, address: int, size: int, fd: int, file_size: int) -> list[Range]:
        """Ranges of `size` bytes at `address` that differ, or may differ, from the file."""
        if not size:
            return []
        if self._process != os.getpid():
            self._open()
        if self._scan:
            return self._scanned(address, size, _COPIES)
        if self._pagemap >= 0:
            return self._read(address, size, copies=True)
        return compare(address, size, fd, file_size)

    def resident(self, address: int, size: int) -> list[Range] | None:
        """Ranges of pages that were touched since `drop`; None where the system doesn't tell."""
        if not size:
            return []
        if self._process != os.getpid():
            self._open()
        if self._scan:
            return self._scanned(address, size, _RESIDENT)
        if self._pagemap >= 0:
            return self._read(address, size, copies=False)
        return None

    def _try_scan(self) -> bool:
        probe = mmap.mmap(-1, PAGE)
        try:
            self._scanned(ctypes.addressof(ctypes.c_char.from_buffer(probe)), PAGE, _COPIES)
        except OSError:
            return False
        return True

    def _scanned(self, address: int, size: int, kind: tuple[int, int, int, int]) -> list[Range]:
        # struct pm_scan_arg of linux/fs.h
        request, length, room = 0xC0606610, 96, 1024
        found = (ctypes.c_uint64 * (3 * room))()
        out: list[Range] = []
        at, end = address, address + size
        while at < end:
            argument = bytearray(
                struct.pack(
                    "12Q",
                    *(length, 0, at, end, 0, ctypes.addressof(found), room, 0),
                    *kind,
                )
            )
            count = fcntl.ioctl(self._pagemap, request, argument, True)
            out.extend((found[3 * i] - address, found[3 * i + 1] - address) for i in range(count))
            (walked,) = struct.unpack_from("Q", argument, 32)
            # With its room used up, the kernel may name an address before the last range.
            after = max(walked, address + out[-1][1] if count else 0)
            if after <= at:
                raise OSError("the kernel's page scan does not get on")
            at = after
        return out

    def _read(self, address: int, size: int, *, copies: bool) -> list[Range]:
        out: list[Range] = []
        step = 1 << 30  # 2 MiB of pagemap at a time
        for start in range(0, size, step):
            pages = (min(step, size - start) + PAGE - 1) // PAGE
            raw = os.pread(self._pagemap, pages * 8, (address + start) // PAGE * 8)
            entries = np.frombuffer(raw, dtype=np.uint64)
            there = (entries >> np.uint64(62)) != 0
            shared = (entries >> np.uint64(61)) & np.uint64(1)
            out.extend(_runs(there & (shared == 0) if copies else there, start))
        return list(_close_gaps(out, 0))


def _runs(dirty: np.ndarray[tuple[int], np.dtype[np.bool_]], start: int) -> list[Range]:
    """Turn a flag for each page into ranges."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], dirty.view(np.int8), [0]))))
    return [
        (start + int(first) * PAGE, start + int(last) * PAGE)
        for first, last in zip(edges[::2], edges[1::2], strict=True)
    ]


def compare(address: int, size: int, fd: int, file_size: int) -> list[Range]:
    """Find the pages that differ from the file; what lies past its end is compared with zeros."""
    shown = min(size, file_size)
    out: list[Range] = []
    zeros = ctypes.create_string_buffer(_COMPARE_AT_ONCE)
    base = ctypes.addressof(zeros)
    if shown:
        mapped = _map(None, shown, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        try:
            out += _differing(address, lambda at: mapped + at, 0, shown)
        finally:
            unmap(mapped, shown)
    out += _differing(address, lambda _: base, shown, size)
    return list(_close_gaps(out, 0))


def _differing(address: int, other: Callable[[int], int], start: int, end: int) -> Iterator[Range]:
    for chunk in range(start, end, _COMPARE_AT_ONCE):
        length = min(_COMPARE_AT_ONCE, end - chunk)
        if _libc.memcmp(address + chunk, other(chunk), length) == 0:
            continue
        for page in range(chunk, chunk + length, PAGE):
            last = min(page + PAGE, end)
            if _libc.memcmp(address + page, other(page), last - page):
                yield page, last

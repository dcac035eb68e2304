"""Regions of a canister's stable memory, read and written from outside.

The layout is that of ic-stable-structures' MemoryManager: a page that says which bucket belongs to
which region, then the buckets. Only for measuring: contents that would take hours to upload are put
where the canister would have put them.
"""

from __future__ import annotations

import os
import struct

from icgpt.replica.stable import StableMemory

PAGE = 1 << 16
_HEAD = struct.Struct("<3sBHH32x")
_SIZES = 255
_BUCKETS_AT = _HEAD.size + 8 * _SIZES


class Regions:
    """The regions of a stable memory between two messages."""

    def __init__(self, stable: StableMemory) -> None:
        self._stable = stable
        magic, version, self._count, self._bucket_pages = _HEAD.unpack(self._pread(0, _HEAD.size))
        if (magic, version) != (b"MGR", 1):
            raise ValueError("this stable memory has no regions")
        owners = self._pread(_BUCKETS_AT, self._count)
        self._buckets: dict[int, list[int]] = {}
        for bucket, owner in enumerate(owners):
            self._buckets.setdefault(owner, []).append(bucket)

    def read(self, region: int, offset: int, size: int) -> bytes:
        """Bytes of a region, as far as it has buckets for them."""
        return b"".join(self._pread(at, n) for at, n in self._pieces(region, offset, size))

    def write(self, region: int, offset: int, data: bytes) -> None:
        """Overwrite bytes of a region, which must be there."""
        view = memoryview(data)
        for at, size in self._pieces(region, offset, len(data)):
            os.pwrite(self._stable.fd, view[:size], at)
            view = view[size:]
        if view:
            raise ValueError(f"region {region} ends before")

    def grow(self, region: int, size: int) -> None:
        """Make a region at least so many bytes long."""
        own = self._buckets.setdefault(region, [])
        bucket_bytes = self._bucket_pages * PAGE
        more = max(-(-size // bucket_bytes) - len(own), 0)
        first = self._count
        self._count += more
        own += range(first, self._count)
        end = 1 + self._count * self._bucket_pages
        if self._stable.grow(max(end - self._stable.pages, 0)) < 0:
            raise MemoryError("stable memory can't grow")
        fd = self._stable.fd
        os.pwrite(fd, bytes([region]) * more, _BUCKETS_AT + first)
        os.pwrite(fd, struct.pack("<H", self._count), 4)
        os.pwrite(fd, struct.pack("<Q", -(-size // PAGE)), _HEAD.size + 8 * region)
        self._stable.commit()

    def _pieces(self, region: int, offset: int, size: int) -> list[tuple[int, int]]:
        """Where bytes of a region lie in the memory, and how many there."""
        bucket_bytes = self._bucket_pages * PAGE
        own = self._buckets.get(region, [])
        out = []
        while size and offset // bucket_bytes < len(own):
            inside = offset % bucket_bytes
            step = min(size, bucket_bytes - inside)
            out.append((PAGE + own[offset // bucket_bytes] * bucket_bytes + inside, step))
            offset, size = offset + step, size - step
        return out

    def _pread(self, offset: int, size: int) -> bytes:
        return os.pread(self._stable.fd, size, offset)

"""What a message owes for the pages of memory that it touches.

The platform charges a page at the moment it is first touched. For stable memory so do we. Heap
accesses leave no trace but in the page tables, which are read when the canister asks for its
instruction counter and when the message ends: so the counter is right whenever the canister looks,
and a message that goes past its limit by touching pages fails all the same, only later.
"""

from __future__ import annotations

from icgpt.replica import errors
from icgpt.replica.heap import Heap
from icgpt.replica.weights import Limits, PagePrices


class PageMeter:
    """The pages of one message."""

    def __init__(
        self, prices: PagePrices, *, keeps_writes: bool, most: int = 1 << 62, limits: Limits
    ) -> None:
        self._prices = prices
        self._most = most  # bytes of stable memory that may be touched
        self._limits = limits
        self._keeps_writes = keeps_writes  # else nothing is left to do after the message
        self._heap_charged = 0
        self._heap_written = 0
        self._accessed: set[int] = set()
        self._written: set[int] = set()
        self.charged = 0

    def heap(self, heap: Heap) -> int:
        """What has to be charged for the heap since the last time."""
        prices = self._prices
        if not prices.heap_counts:
            return 0
        accessed, written = heap.touched(prices.unit)
        self._heap_written = written if self._keeps_writes else 0
        owed = accessed * prices.heap_access + self._heap_written * prices.heap_write
        due, self._heap_charged = owed - self._heap_charged, owed
        self.charged += due
        return due

    def stable(self, offset: int, size: int, *, write: bool) -> int:
        """What has to be charged for a read or write of stable memory."""
        prices = self._prices
        first, last = offset // prices.unit, (offset + size - 1) // prices.unit
        due = 0
        due += prices.stable_access * _add(self._accessed, first, last)
        if len(self._accessed) * prices.unit > self._most:
            raise errors.access_limit(self._limits.update_stable, self._limits.query_stable)
        if write and (self._keeps_writes or prices.queries_write):
            due += prices.stable_write * _add(self._written, first, last)
        self.charged += due
        return due

    def after(self) -> int:
        """What has to be charged for written pages when the message has ended well."""
        if not self._keeps_writes:
            return 0
        prices = self._prices
        due = self._heap_written * prices.heap_after + len(self._written) * prices.stable_after
        self.charged += due
        return due


def _add(pages: set[int], first: int, last: int) -> int:
    """Add a range of pages; gives the number of new ones."""
    if first == last and first in pages:
        return 0
    before = len(pages)
    pages.update(range(first, last + 1))
    return len(pages) - before

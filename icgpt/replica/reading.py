"""Instances for queries: they run beside the updates, on the memory as it was committed last.

A reader maps the same heap file as the live instance. Before a commit overwrites pages of that
file, the readers that are at work get private copies of them, so each sees one state from its begin
to its end. What a reader writes is its own, and dropped with its next begin.
"""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import dataclass

import wasmtime

from icgpt.replica import pages
from icgpt.replica.binding import Binding
from icgpt.replica.folder import SavedGlobal
from icgpt.replica.instance import Instance
from icgpt.replica.messages import Message, Outcome
from icgpt.replica.module import Prepared
from icgpt.replica.page_meter import PageMeter
from icgpt.replica.pages import Range
from icgpt.replica.running import entry_of, limit_of, meter, run
from icgpt.replica.stable import MAX_PAGES, WASM_PAGE, WINDOW, StableMemory
from icgpt.replica.system_api import SystemApi
from icgpt.replica.weights import Release


@dataclass(frozen=True)
class Shown:
    """A committed state: code, sizes, and files that are open for as long as it is in force."""

    code: int  # number of the module and its heap
    prepared: Prepared
    module: wasmtime.Module
    heap_fd: int
    heap_bytes: int
    globals: tuple[SavedGlobal, ...]
    stable: int  # number of the stable memory
    stable_fd: int
    stable_pages: int


class StableView(StableMemory):
    """A stable memory for reading; what is written or grown stays in this process's memory."""

    def __init__(self, fd: int, pages_committed: int) -> None:
        self.fd = os.dup(fd)
        self.pages = pages_committed
        self._committed = pages_committed * WASM_PAGE
        self._windows: dict[int, int] = {}
        self._lock = threading.Lock()
        self.changed = False  # it holds more than the file shows

    def grow(self, additional: int) -> int:
        """Add Wasm pages; gives the old number of pages, or -1."""
        before = self.pages
        if additional > MAX_PAGES - before:
            return -1
        self.pages += additional
        self.changed = True
        return before

    def write(self, offset: int, source: int, size: int) -> None:
        """Copy `size` bytes at the address `source` to `offset`."""
        self.changed = True
        while size:
            inside = offset % WINDOW
            step = min(size, WINDOW - inside)
            ctypes.memmove(self._window(offset // WINDOW) + inside, source, step)
            source, offset, size = source + step, offset + step, size - step

    def preserve(self, changes: list[tuple[int, int, int]]) -> bool:
        """Keep what the file shows before it is overwritten; False where that can't be done."""
        self.changed = True
        for offset, _, size in changes:
            end = min(offset + size, self._committed)
            while offset < end:
                inside = offset % WINDOW
                step = min(end - offset, WINDOW - inside)
                base = self._window(offset // WINDOW)
                if not pages.privatise(base, [(inside, inside + step)]):
                    return False
                offset += step
        return True

    def close(self) -> None:
        """Unmap, and close the file."""
        self.release()
        os.close(self.fd)

    def _window(self, index: int) -> int:
        with self._lock:  # `preserve` is called from another thread than all else
            base = self._windows.get(index)
            if base is None:
                base = pages.reserve(WINDOW)
                start = index * WINDOW
                shown = min(max(self._committed - start, 0), WINDOW)
                if shown:
                    pages.map_private(base, shown, self.fd, start)
                if shown < WINDOW:
                    pages.map_zeros(base + shown, WINDOW - shown)
                self._windows[index] = base
            return base


class Reader:
    """Runs queries of one canister, one at a time."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._api = SystemApi()
        self._binding = Binding(self._api, release)
        self._instance: Instance | None = None
        self._heap_fd = -1
        self._stable: StableView | None = None
        self._pages: PageMeter | None = None
        self._ended = threading.Event()
        self.shown: Shown | None = None

    def begin(self, shown: Shown) -> None:
        """Start from a committed state. No commit may go on meanwhile."""
        known, self.shown = self.shown, shown
        self._ended.clear()
        instance = self._instance
        if (
            instance is None
            or known is None
            or (known.code, known.heap_bytes) != (shown.code, shown.heap_bytes)
            or instance.heap.size != shown.heap_bytes
            or shown.prepared.metered.forgets
        ):
            self._drop_instance()
            self._heap_fd = os.dup(shown.heap_fd)
            heap = (self._heap_fd, shown.heap_bytes)
            instance = Instance(shown.module, shown.prepared, self._binding, self._api, heap)
            self._instance = instance
        else:
            instance.heap.rollback()
        instance.restore_globals(shown.globals)
        instance.heap.watch()
        stable, place = self._stable, (shown.stable, shown.stable_pages)
        if known is None or (known.stable, known.stable_pages) != place or stable is None:
            self._drop_stable()
            stable = self._stable = StableView(shown.stable_fd, shown.stable_pages)
        elif stable.changed:
            stable.release()
            stable.pages = shown.stable_pages
            stable.changed = False
        self._api.instance, self._api.stable = instance, stable
        self._pages = None

    def run(self, message: Message, most: int | None = None) -> Outcome:
        """Run a query, or a callback of a composite one, on what the ones before have left."""
        if self.shown is None or self._instance is None:
            raise RuntimeError("a reader runs nothing before it has begun")
        instance = self._instance
        entry = entry_of(self.shown.prepared, message)
        if isinstance(entry, Outcome):
            return entry
        limit = limit_of(self._release, message)
        if most is not None:
            limit = min(limit, most)
        if self._pages is None:
            self._pages = meter(self._release, message)
        saved = instance.save_globals()
        outcome = run(self._api, lambda: instance, message, entry, limit, self._pages)
        if outcome.trap is not None:
            instance.restore_globals(saved)
        return outcome

    def preserve(self, code: int, heap: list[Range], stable: list[tuple[int, int, int]]) -> None:
        """Keep the state that was begun with, as a commit is about to overwrite it."""
        shown, instance, view = self.shown, self._instance, self._stable
        if shown is None or shown.code != code or instance is None or view is None:
            return
        kept = pages.privatise(instance.heap.base, heap)
        if not (kept and view.preserve(stable)):
            self._ended.wait()  # the system can't do it: let the query end first

    def done(self) -> None:
        """Tell that the query is over."""
        self._ended.set()

    def end(self) -> None:
        """Give back what the query has written. No commit may go on meanwhile."""
        if self._instance is not None and self.shown is not None:
            if self._instance.heap.size == self.shown.heap_bytes:
                self._instance.heap.watch()
            else:
                self._drop_instance()
        if self._stable is not None and self._stable.changed:
            self._stable.release()

    def close(self) -> None:
        """Let go of everything."""
        self._drop_instance()
        self._drop_stable()

    def _drop_instance(self) -> None:
        if self._instance is not None:
            self._instance.close()
            self._instance = None
            os.close(self._heap_fd)

    def _drop_stable(self) -> None:
        if self._stable is not None:
            self._stable.close()
            self._stable = None

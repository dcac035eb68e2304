"""What became of the users' requests: the ingress history, and its part of the state tree.

Requests are known by their ids, so that one sent twice runs once. The worker sets states, the
server reads them, from different threads; what has changed goes into the tree when it is asked
for. A request is forgotten once it has expired and could not be accepted again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from icgpt.candid import unsigned_leb128
from icgpt.replica import certification
from icgpt.replica.certification import EMPTY, Deferred, Tree
from icgpt.replica.ingress import PERMITTED_DRIFT
from icgpt.replica.messages import Reject
from icgpt.replica.records import Entry

# Replies kept at most; beyond, the oldest are forgotten but for the fact that they were given.
MAX_REPLY_BYTES = 64 << 20
FINAL = frozenset({"replied", "rejected", "done"})


def certified(entry: Entry) -> Tree:
    """Return what the state tree holds of a request."""
    content = {b"status": entry.status.encode()}
    if entry.status == "replied":
        content[b"reply"] = entry.reply
    if entry.status == "rejected" and entry.reject is not None:
        content[b"reject_code"] = unsigned_leb128(entry.reject.code)
        content[b"reject_message"] = entry.reject.message.encode()
        content[b"error_code"] = entry.reject.error_code.encode()
    return certification.labeled(content)


class History:
    """All known requests. Every method may be called from any thread."""

    def __init__(self, saved: Iterable[Entry] = ()) -> None:
        self._lock = threading.Lock()
        self._entries: dict[bytes, Entry] = {}
        self._changed: dict[bytes, None] = {}
        self._tree: Tree = EMPTY
        self._finished: dict[bytes, int] = {}  # replies that are held, oldest first: their size
        self._reply_bytes = 0
        self._unwritten: dict[bytes, None] = {}
        self.changes = 0  # counts the changes to the tree
        self.pending = 0  # requests without an answer so far
        for entry in saved:
            self._entries[entry.id] = entry
            self._note(entry.id)
            if entry.status in FINAL:
                self._hold(entry)
            else:
                self.pending += 1
        self._unwritten.clear()

    def add(self, entry: Entry) -> bool:
        """Take note of a request; False if it is known already."""
        with self._lock:
            if entry.id in self._entries:
                return False
            self._entries[entry.id] = entry
            self._changed[entry.id] = None  # and nothing unwritten: it is in the log by itself
            self.changes += 1
            self.pending += 1
            return True

    def get(self, request_id: bytes) -> Entry | None:
        """Return the request's state."""
        return self._entries.get(request_id)

    def processing(self, request_id: bytes) -> None:
        """Take note that the request has begun to run."""
        with self._lock:
            entry = self._entries.get(request_id)
            if entry is not None and entry.status == "received":
                self._entries[request_id] = replace(entry, status="processing")
                self._note(request_id)

    def finish(self, request_id: bytes, reply: bytes, reject: Reject | None) -> None:
        """Take note of the answer."""
        with self._lock:
            entry = self._entries.get(request_id)
            if entry is None or entry.status in FINAL:
                return
            status = "replied" if reject is None else "rejected"
            entry = replace(entry, status=status, reply=reply, reject=reject)
            self._entries[request_id] = entry
            self._note(request_id)
            self.pending -= 1
            self._hold(entry)

    def _note(self, request_id: bytes) -> None:
        self._changed[request_id] = self._unwritten[request_id] = None
        self.changes += 1

    def _hold(self, entry: Entry) -> None:
        self._finished[entry.id] = len(entry.reply)
        self._reply_bytes += len(entry.reply)
        while self._reply_bytes > MAX_REPLY_BYTES:
            oldest = next(iter(self._finished))
            self._release(oldest)
            self._entries[oldest] = replace(self._entries[oldest], status="done", reply=b"")
            self._note(oldest)

    def _release(self, request_id: bytes) -> None:
        self._reply_bytes -= self._finished.pop(request_id, 0)

    def forget(self, now: int) -> None:
        """Drop the answered requests that have expired."""
        with self._lock:
            for entry in list(self._entries.values()):
                if entry.status in FINAL and entry.expiry + PERMITTED_DRIFT < now:
                    del self._entries[entry.id]
                    self._note(entry.id)
                    self._release(entry.id)

    def tree(self) -> Tree:
        """Return the subtree of all requests as it is now."""
        with self._lock:
            for request_id in self._changed:
                entry = self._entries.get(request_id)
                if entry is None:
                    self._tree = certification.remove(self._tree, request_id)
                else:
                    subtree = Deferred(partial(certified, entry))
                    self._tree = certification.insert(self._tree, request_id, subtree)
            self._changed.clear()
            return self._tree

    def entries(self) -> list[Entry]:
        """Return the states of all requests."""
        with self._lock:
            return list(self._entries.values())

    def unwritten(self) -> tuple[list[Entry], list[bytes]]:
        """Return the requests that have changed since the last time, and those forgotten."""
        with self._lock:
            changed, self._unwritten = self._unwritten, {}
            known = [self._entries[i] for i in changed if i in self._entries]
            return known, [i for i in changed if i not in self._entries]

    @property
    def changed(self) -> bool:
        """Whether there is something for `unwritten` to tell."""
        return bool(self._unwritten)

"""What has happened since the state was last written as a whole: a log of small steps.

Every message that is let in is written here before its sender hears of it, and every task that has
run, before anybody hears of its answer. A step holds what it has changed, whole: records of
canisters, tasks put into the queue and taken out, states of requests. When the log has grown long,
the whole state is written beside it and the log begins anew. Steps are numbered, so those that the
state has already are left out, and each has a checksum: what is half written is cut off. Nor does
what the file still holds from earlier count, as its numbers don't follow.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from icgpt.replica import state
from icgpt.replica.pages import write_all
from icgpt.replica.records import CanisterRecord, Entry, Everything, OpenStep, Step, Task

_HEAD = struct.Struct("<III")  # length, bytes of the argument behind it, checksum of both
KEPT = 32 << 20  # bytes of a log before the state is written as a whole
MAX_STEP = 1 << 30


class Log:
    """The log file. Any thread may call `append`, and hold `lock` around what belongs to it."""

    def __init__(self, file: Path, *, sync: bool = False) -> None:
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._sync = sync
        self.lock = threading.RLock()
        self.size = 0
        self.sequence = 0  # of the last step
        self.broken = False  # a step could not be written: nothing counts until the next `clear`

    def replay(self, everything: Everything) -> None:
        """Bring a state up to date."""
        tables = _Tables(everything)
        for step in self._read():
            self.sequence = step.sequence
            if step.sequence > everything.sequence:
                tables.apply(step)
        self.sequence = max(self.sequence, everything.sequence)
        tables.put_back(everything)

    def _read(self) -> Iterator[Step]:
        size = os.fstat(self._fd).st_size
        last = None
        while True:
            head = os.pread(self._fd, _HEAD.size, self.size)
            if len(head) < _HEAD.size:
                break
            length, behind, checksum = _HEAD.unpack(head)
            if not length or length + behind > min(MAX_STEP, size - self.size - _HEAD.size):
                break
            body = os.pread(self._fd, length + behind, self.size + _HEAD.size)
            if zlib.crc32(body) != checksum:
                break
            step = state.unpack(body[:length], Step)
            if last is not None and step.sequence != last + 1:
                break
            last = step.sequence
            if step.let_in is not None:
                step.let_in = replace(step.let_in, arg=body[length:])
            yield step
            self.size += _HEAD.size + length + behind
        os.ftruncate(self._fd, self.size)

    def append(self, step: Step) -> None:
        """Write a step; raises OSError, and then nothing more is written before `clear`."""
        with self.lock:
            if self.broken:
                return
            step.sequence = self.sequence + 1
            behind = b""
            if step.let_in is not None:  # large, and not to be copied more often than need be
                behind = step.let_in.arg
                step.let_in = replace(step.let_in, arg=b"")
            body = state.pack(step)
            checksum = zlib.crc32(behind, zlib.crc32(body))
            head = _HEAD.pack(len(body), len(behind), checksum)
            try:
                self._write(head + body, behind)
            except OSError:
                self.broken = True
                raise
            self.sequence += 1
            self.size += len(head) + len(body) + len(behind)

    def _write(self, frame: bytes, behind: bytes) -> None:
        if behind:
            write_all(self._fd, memoryview(behind), self.size + len(frame))
        write_all(self._fd, memoryview(frame), self.size)
        if self._sync:
            os.fsync(self._fd)

    def clear(self) -> None:
        """Begin anew, as the whole state has been written."""
        with self.lock:
            if os.fstat(self._fd).st_size > 2 * KEPT:
                os.ftruncate(self._fd, 0)
            self.size = 0
            self.broken = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class _Tables:
    """A state by ids, while steps are applied to it."""

    def __init__(self, everything: Everything) -> None:
        self.next_canister, self.next_id = everything.next_canister, everything.next_id
        self.canisters: dict[bytes, CanisterRecord] = {r.id: r for r in everything.canisters}
        self.entries: dict[bytes, Entry] = {e.id: e for e in everything.entries}
        self.messages = {m.request_id: m for m in everything.messages}
        self.inbox: dict[bytes, Task] = {t.origin.request_id: t for t in everything.inbox}
        self.queue = list(everything.queue)
        self.ledgers = everything.ledgers

    def apply(self, step: Step) -> None:
        """Do a step again."""
        if step.next_id:
            self.next_canister, self.next_id = step.next_canister, step.next_id
        for record in step.canisters:
            known = self.canisters.get(record.id)
            if known is not None:
                record.contexts, record.calls = known.contexts, known.calls
            self.canisters[record.id] = record
        for item in step.open:
            self._open(item)
        for canister in step.removed:
            self.canisters.pop(canister, None)
        self.entries.update((entry.id, entry) for entry in step.entries)
        self.ledgers = step.ledgers or self.ledgers
        for request_id in step.forgotten:
            self.entries.pop(request_id, None)
        self.messages.update((record.request_id, record) for record in step.messages)
        if step.let_in is not None:
            self.inbox[step.let_in.origin.request_id] = step.let_in
        for change in step.queue:
            if change.kind == "remove":
                del self.queue[change.index]
            elif change.kind == "push" and change.task is not None:
                self.queue.append(change.task)
            else:
                task = self.inbox.pop(change.request_id, None)
                if change.kind == "take" and task is not None:
                    self.queue.append(task)

    def _open(self, item: OpenStep) -> None:
        record = self.canisters.get(item.canister)
        if record is None:
            return
        if item.context is not None:
            record.contexts[item.id] = item.context
        elif item.call is not None:
            record.calls[item.id] = item.call
        else:  # ids are shared by the two
            record.contexts.pop(item.id, None)
            record.calls.pop(item.id, None)

    def put_back(self, everything: Everything) -> None:
        """Write the tables into the state."""
        everything.next_canister, everything.next_id = self.next_canister, self.next_id
        everything.canisters = list(self.canisters.values())
        everything.entries = list(self.entries.values())
        everything.messages = list(self.messages.values())
        everything.inbox = list(self.inbox.values())
        everything.queue = self.queue
        everything.ledgers = self.ledgers

"""The state of one message, and what all system calls share: charging, checked access to the heap.

What the message does to the world outside of its memories is gathered here and becomes its
`Outcome`. Every pointer is checked against the heap before memory is touched.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from icgpt.replica import errors
from icgpt.replica.ic0 import mode
from icgpt.replica.messages import Callback, Kind, Message, Outcome
from icgpt.replica.page_meter import PageMeter
from icgpt.replica.weights import BYTE_TRANSMISSION, LOG_CAPACITY

if TYPE_CHECKING:
    from icgpt.replica.instance import Instance
    from icgpt.replica.stable import StableMemory

MAX_REPLY = 2 << 20  # also of arguments of calls between canisters
MAX_QUERY_REPLY = 3 << 20
MAX_NAME = 20_000  # bytes of a method's or variable's name
MAX_LOGS = 1 << 20  # bytes that one message may log
SETTLE_AT = 1 << 20  # charges that may wait before the module's own counter is told


class MessageState:
    """The running message."""

    def __init__(self) -> None:
        self.instance: Instance
        self.stable: StableMemory
        self.failure: BaseException | None = None

    def begin(self, message: Message, limit: int, pages: PageMeter) -> None:
        """Set everything up for a message that may use `limit` instructions."""
        self.message = message
        self.pages = pages
        self.environment = message.environment
        self.mode, self.mode_name = mode(message)
        self.limit = limit
        self.waiting = 0  # charges that the module's counter does not know yet
        self.failure = None
        self.outcome = Outcome()
        self.arg = bytes(message.arg)
        system = message.kind in (Kind.TIMER, Kind.HEARTBEAT, Kind.LOW_WASM_MEMORY)
        self.caller = b"" if system else message.caller
        self.balance = message.environment.balance
        self.available = message.cycles
        self.answered = message.answered
        self.reply: list[bytes] = []
        self.reply_size = 0
        self.max_reply = MAX_QUERY_REPLY if self.mode in ("NRQ", "CQ") else MAX_REPLY
        self.call: PendingCall | None = None
        self.log_room = LOG_CAPACITY
        self.logged = 0

    def charge(self, amount: int) -> None:
        """Charge instructions; traps when the message has none left."""
        self.waiting += amount
        if self.waiting >= SETTLE_AT:
            self.settle()

    def settle(self) -> None:
        """Take the waiting charges off the module's counter."""
        if not self.waiting:
            return
        left = max(self.instance.counter() - self.waiting, -1)
        self.waiting = 0
        self.instance.set_counter(left)
        if left < 0:
            raise errors.instruction_limit(self.limit)

    def used(self) -> int:
        """Instructions that the message has used so far."""
        return self.limit - self.instance.counter() + self.waiting

    def _heap_range(self, what: str, start: int, size: int) -> int:
        """The address of a checked range of the heap."""
        heap = self.instance.heap
        if start + size > heap.size:
            raise errors.outside(what, start, size, heap.size)
        return heap.base + start

    def _load(self, what: str, start: int, size: int) -> bytes:
        return ctypes.string_at(self._heap_range(what, start, size), size)

    def _store(self, what: str, target: int, data: bytes) -> None:
        ctypes.memmove(self._heap_range(what, target, len(data)), data, len(data))

    def _store128(self, call: str, target: int, amount: int) -> None:
        self._store(f"ic0.{call} heap", target, amount.to_bytes(16, "little"))

    def _copy(self, call: str, what: str, data: bytes, target: int, offset: int, size: int) -> None:
        """Copy a part of `data` into the heap: what all `_copy` calls do."""
        self.charge(size)
        if offset + size > len(data):
            raise errors.outside(f"ic0.{call} {what}", offset, size, len(data))
        address = self._heap_range(f"ic0.{call} heap", target, size)
        ctypes.memmove(address, data[offset:] if offset else data, size)

    def _charge_log(self, size: int) -> None:
        sent = min(size, self.log_room)
        self.log_room -= sent
        self.charge(2 * min(size, LOG_CAPACITY) + BYTE_TRANSMISSION * sent)

    def log(self, content: bytes) -> None:
        """Add a line to the canister's log."""
        content = content[:LOG_CAPACITY]
        if self.logged + len(content) <= MAX_LOGS:
            self.logged += len(content)
            self.outcome.logs.append((self.environment.time, content))


class PendingCall:
    """A call between `call_new` and `call_perform`."""

    def __init__(self, callee: bytes, method: str, on_reply: Callback, on_reject: Callback) -> None:
        self.callee = callee
        self.method = method
        self.on_reply = on_reply
        self.on_reject = on_reject
        self.on_cleanup: Callback | None = None
        self.arg: list[bytes] = []
        self.size = 0
        self.cycles = 0
        self.timeout: int | None = None

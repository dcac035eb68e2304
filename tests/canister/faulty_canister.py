"""The built canister alone, in a world where things go wrong: messages trap, calls are lost, time
passes.

Every message is delivered when the test says so. Traps are the platform's own: the limit on
instructions is lowered while something runs. As on the platform, a trap takes back what its
message did, an update that trapped rejects its call, and a callback that trapped is followed by its
clean-up.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lone_canister import MANAGEMENT, OWNER, RANDOM, SELF, LoneCanister, RefusedError
from stable_regions import Regions

from icgpt.replica.messages import Callback, Kind, Message, Outcome, OutgoingCall, Reject

__all__ = ["FaultyCanister", "RefusedError", "Request"]

PACKED = (9, 10)  # regions
MAGIC = b"\x89icgptW\n"


@dataclass
class Request:
    """What became of a call so far."""

    method: str
    reply: bytes | None = None
    reject: Reject | None = None
    messages: int = 0

    @property
    def waits(self) -> bool:
        """Whether there is no response yet."""
        return self.reply is None and self.reject is None


class FaultyCanister(LoneCanister):
    """A canister whose messages are delivered one by one."""

    def __init__(self, folder: Path, wasm: bytes) -> None:
        super().__init__(folder, wasm)
        self._waiting: deque[tuple[OutgoingCall, Request]] = deque()
        self._caller = OWNER

    # -- the world

    @property
    def now(self) -> int:
        """The time, in nanoseconds."""
        return self._environment.time

    def pass_time(self, seconds: float) -> None:
        """Set the clock forward."""
        now = self._environment.time + int(seconds * 1e9)
        self._environment = replace(self._environment, time=now)

    @contextmanager
    def limit(self, instructions: int) -> Iterator[None]:
        """Let messages use so many instructions and no more."""
        canister = self._canister
        release = canister._release
        limits = replace(release.limits, update=instructions)
        canister._release = replace(release, limits=limits)
        try:
            yield
        finally:
            canister._release = release

    @contextmanager
    def claiming(self, instructions: int) -> Iterator[None]:
        """Let the canister read from its counter that so much has been used already."""
        api: Any = self._canister._api
        used = api.used
        api.used = lambda: used() + instructions
        try:
            yield
        finally:
            del api.used

    @contextmanager
    def calling(self, caller: bytes) -> Iterator[None]:
        """Call as somebody else."""
        self._caller, before = caller, self._caller
        try:
            yield
        finally:
            self._caller = before

    def change_packed_version(self) -> None:
        """Let the packed weights be of a layout that nobody knows."""
        regions = Regions(self.stable)
        (region,) = (one for one in PACKED if regions.read(one, 0, len(MAGIC)) == MAGIC)
        regions.write(region, len(MAGIC), struct.pack("<I", 77))

    def lose_calls(self) -> None:
        """Forget what is under way, as a network does that is killed: nobody gets a response."""
        self._waiting.clear()

    # -- messages

    def begin(self, method: str, *arguments: Any) -> Request:
        """Deliver an update; what it calls waits."""
        request = Request(method)
        argument = self._encode(method, arguments)
        request.reject = self._run(
            self._message(Kind.UPDATE, method, argument, self._caller), request
        )
        return request

    def answer(self, request: Request) -> Any:
        """What a request was answered with."""
        assert request.reply is not None, request
        return self._decode(request.method, request.reply)

    def deliver(self) -> str:
        """Deliver the oldest call that waits, and its response; gives its method."""
        call, request = self._waiting.popleft()
        inner = Request(call.method)
        if call.callee == MANAGEMENT:
            inner.reply = RANDOM
        else:
            assert call.callee == SELF
            trap = self._run(self._message(Kind.UPDATE, call.method, call.arg), inner)
            inner.reject = trap
        kind = Kind.REPLY_CALLBACK if inner.reject is None else Kind.REJECT_CALLBACK
        callback = call.on_reply if inner.reject is None else call.on_reject
        message = self._callback(kind, callback, request)
        trap = self._run(replace(message, arg=inner.reply or b"", reject=inner.reject), request)
        if trap is not None:
            if call.on_cleanup is not None:
                self._run(self._callback(Kind.CLEANUP, call.on_cleanup, request), request)
            if request.waits:
                request.reject = trap
        return call.method

    @property
    def waits(self) -> bool:
        """Whether there is a call to deliver."""
        return bool(self._waiting)

    def has_jobs(self) -> bool:
        """Whether there are jobs that have not ended: then the timer goes on."""
        self.pass_time(3)
        self.wake()
        return self._timer > 0

    def wake(self) -> bool:
        """Deliver the timer, if it is due."""
        if not 0 < self._timer <= self._environment.time:
            return False
        self._timer = 0
        assert self._run(self._message(Kind.TIMER, "", b""), Request("timer")) is None
        return True

    def settle(self) -> None:
        """Deliver all that is to be delivered now."""
        while self._waiting or self.wake():
            if self._waiting:
                self.deliver()

    def _message(self, kind: Kind, method: str, arg: bytes, caller: bytes = SELF) -> Message:
        return Message(kind, self._environment, method=method, arg=arg, caller=caller)

    def _callback(self, kind: Kind, callback: Callback, request: Request) -> Message:
        message = self._message(kind, "", b"")
        return replace(message, callback=callback, answered=not request.waits)

    def _run(self, message: Message, request: Request) -> Reject | None:
        """Run a message of a request, and keep what it did; gives its trap."""
        outcome: Outcome = self._canister.execute(message)
        if outcome.trap is not None:
            return outcome.trap
        if outcome.timer is not None:
            self._timer = outcome.timer
        request.messages += 1
        if request.waits:
            request.reply = outcome.reply
        self._waiting.extend((call, request) for call in outcome.calls)
        return None

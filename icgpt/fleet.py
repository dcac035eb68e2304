"""Fleet: several canisters with one model, used like one; AsyncFleet: awaited.

    with Fleet.connect("model") as fleet:
        done = fleet.complete("ROMEO:", max_new_tokens=50)
        print(done.text, done.canister)

Calls are spread over the canisters, and go on to another when one is stopped, frozen, busy or
unreachable: always when it is known that nothing was begun. A job that was begun goes on elsewhere
from the tokens that have been read: the same model, options and seed give the same answer. An
update call of which nobody knows whether it was taken is not made again, but raised.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from icgpt import fleet_members, methods, proving
from icgpt.agent import Agent, AsyncAgent
from icgpt.client import Job, found_fleet
from icgpt.errors import CanisterError, IcgptError
from icgpt.fleet_members import (
    Group,
    Member,
    Members,
    Tell,
    anywhere,
    none_left,
    not_begun,
    unavailable,
)
from icgpt.identity import Identity
from icgpt.results import Completion, ModelInfo
from icgpt.steps import Awaiting, Blocking, Steps
from icgpt.transport import AsyncClosing, Closing

T = TypeVar("T")

_GONE = "no such job"  # reinstalled, or forgotten


class _FleetJob(Job):
    """A job that has been read so far, and goes on elsewhere when its canister fails."""

    def __init__(
        self, fleet: Group, member: Member, job: bytes, prompt: Any, options: dict[str, Any]
    ) -> None:
        super().__init__(member, job)
        self.member = member
        self._fleet = fleet
        self._prompt = prompt
        self._options = options
        self._spent = 0
        self._open = True

    @property
    def canister(self) -> bytes:
        """Which canister writes."""
        return self.member.id

    def add(self, piece: Completion) -> None:
        """Takes a piece in; the work of canisters before this one counts, too."""
        super().add(replace(piece, instructions=piece.instructions + self._spent))
        self.completion = replace(self.completion, canister=self.member.id)

    def next_piece(self) -> Steps[Completion | None]:
        """What has been written since, wherever; None when it had ended before."""
        tried: list[tuple[str, IcgptError]] = []
        while True:
            try:
                piece = yield from super().next_piece()
            except IcgptError as error:
                gone = isinstance(error, CanisterError) and error.message.startswith(_GONE)
                if not (gone or unavailable(error)):
                    self.release()
                    raise
                self.release()
                self._fleet.members.set_aside(self.member, error, tried)
                yield from self._go_on(tried)
                continue
            if piece is None or piece.finish is not None:
                self.release()
            return piece

    def _go_on(self, tried: list[tuple[str, IcgptError]]) -> Steps[None]:
        """Has what is missing of the answer written by another canister."""
        so_far = self.completion
        options = dict(self._options)
        if so_far.token_ids:
            echoed = 0
            if options.get("echo"):
                echoed = yield from self._prompt_length()
            options["seed"] = so_far.seed
            if not methods.several(options):
                options["begun"] = so_far.token_ids[echoed:]
        self.member, self.job = yield from begin(self._fleet, tried, self._prompt, options)
        self.handle = self.member
        self._spent = so_far.instructions
        self._open = True

    def _prompt_length(self) -> Steps[int]:
        if not isinstance(self._prompt, str):
            return len(self._prompt)
        encoding = yield from anywhere(methods.tokenize, query=True)(self._fleet, self._prompt)
        return len(encoding.token_ids)

    def release(self) -> None:
        """The job no longer counts as one of its canister's."""
        if self._open:
            self._open = False
            self._fleet.members.give_back(self.member)


def begin(
    fleet: Group,
    tried: list[tuple[str, IcgptError]],
    prompt: str | Sequence[int],
    options: dict[str, Any],
) -> Steps[tuple[Member, bytes]]:
    """Starts a job on a canister that takes it; it counts as open until it is given back."""
    while (member := fleet.members.take(tried)) is not None:
        try:
            job = yield from methods.submit(member, prompt, **options)
        except BaseException as error:
            fleet.members.give_back(member)
            if not isinstance(error, IcgptError) or not not_begun(error):
                raise
            fleet.members.set_aside(member, error, tried)
        else:
            fleet.members.answered(member)
            return member, job
    raise none_left(tried)


def complete(fleet: Group, /, prompt: str | Sequence[int], **options: Any) -> Steps[Completion]:
    """The whole answer, as `ModelCanister.complete` gives it; `canister` is who wrote it."""
    member, name = yield from begin(fleet, [], prompt, options)
    job = _FleetJob(fleet, member, name, prompt, options)
    try:
        while (yield from job.next_piece()) is not None:
            pass
    finally:
        job.release()
    job.check()
    return replace(job.completion, job=job.job)


def info(fleet: Group, /) -> Steps[ModelInfo]:
    """What a canister with a model says of itself; any of them, where none has one."""
    tried: list[tuple[str, IcgptError]] = []
    without: ModelInfo | None = None
    while (member := fleet.members.take(tried)) is not None:
        try:
            found = yield from methods.info(member)
        except IcgptError as error:
            if not unavailable(error):
                raise
            fleet.members.set_aside(member, error, tried)
        else:
            if found.ready:
                fleet.members.answered(member)
                return found
            without = found
            tried.append((member.name, CanisterError("no model is set up")))
        finally:
            fleet.members.give_back(member)
    if without is not None:
        return without
    raise none_left(tried)


class Fleet(Group, Closing):
    """Calls on several canisters with one model. `close()` it, or use it as a context manager.

    Threads may share it; each call and each stream goes to the canister that has the fewest.

    Args:
        agent: whose network, identity and connections are used.
        canisters: their names and ids.
        tell: told of a canister's name and error when another one is asked in its place.
        stay: ask one canister as long as it takes calls, for what it has kept of a conversation.
    """

    def __init__(
        self,
        agent: Agent,
        canisters: dict[str, bytes],
        tell: Tell | None = None,
        stay: bool = False,
    ) -> None:
        self.agent: Agent = agent
        self.members = Members(agent, canisters, tell, stay)

    @classmethod
    def connect(
        cls,
        canister: str = "model",
        network: str | None = None,
        identity: str | Identity | None = None,
    ) -> Fleet:
        """Finds the fleet that was deployed by a name; a single canister is one, too."""
        caller, canisters = found_fleet(canister, network, identity)
        return cls(Agent(*caller), fleet_members.in_any_order(canisters))

    def run(self, steps: Steps[T]) -> T:
        """Takes steps of `icgpt.methods`."""
        return self.agent.run(steps)

    complete = Blocking(complete)
    complete_query = Blocking(anywhere(methods.complete_query, query=True))
    generate = Blocking(anywhere(methods.generate))
    infer = Blocking(anywhere(methods.infer))
    ask = Blocking(anywhere(proving.ask))
    tokenize = Blocking(anywhere(methods.tokenize, query=True))
    decode = Blocking(anywhere(methods.decode, query=True))
    decode_each = Blocking(anywhere(methods.decode_each, query=True))
    logits = Blocking(anywhere(methods.logits))
    score = Blocking(anywhere(methods.score))
    info = Blocking(info)

    def stream(self, prompt: str | Sequence[int], **options: Any) -> FleetStream:
        """The answer piece by piece as it is written; takes what `complete` takes."""
        member, job = self.run(begin(self, [], prompt, options))
        return FleetStream(self, member, job, prompt, options)

    def close(self) -> None:
        """Ends the connections."""
        self.agent.close()


class FleetStream(_FleetJob):
    """A running job; iterating gives its pieces, whoever writes them: `canister` is the last."""

    def __init__(
        self, fleet: Fleet, member: Member, job: bytes, prompt: Any, options: dict[str, Any]
    ) -> None:
        super().__init__(fleet, member, job, prompt, options)
        self.fleet = fleet

    def __iter__(self) -> Iterator[Completion]:
        try:
            while (piece := self.fleet.run(self.next_piece())) is not None:
                yield piece
        finally:
            self.release()
        self.check()

    def cancel(self) -> None:
        """Ends the job."""
        self.fleet.run(methods.cancel(self.member, self.job))


class AsyncFleet(Group, AsyncClosing):
    """The same for asyncio: every method is awaited, `stream` gives an async iterator.

    Args:
        agent: whose network, identity and connections are used.
        canisters: their names and ids.
        tell: told of a canister's name and error when another one is asked in its place.
        stay: ask one canister as long as it takes calls, for what it has kept of a conversation.
    """

    def __init__(
        self,
        agent: AsyncAgent,
        canisters: dict[str, bytes],
        tell: Tell | None = None,
        stay: bool = False,
    ) -> None:
        self.agent: AsyncAgent = agent
        self.members = Members(agent, canisters, tell, stay)

    @classmethod
    async def connect(
        cls,
        canister: str = "model",
        network: str | None = None,
        identity: str | Identity | None = None,
    ) -> AsyncFleet:
        """Finds the fleet that was deployed by a name; a single canister is one, too."""
        import asyncio

        caller, canisters = await asyncio.to_thread(found_fleet, canister, network, identity)
        return cls(AsyncAgent(*caller), fleet_members.in_any_order(canisters))

    async def run(self, steps: Steps[T]) -> T:
        """Takes steps of `icgpt.methods`."""
        return await self.agent.run(steps)

    complete = Awaiting(complete)
    complete_query = Awaiting(anywhere(methods.complete_query, query=True))
    generate = Awaiting(anywhere(methods.generate))
    infer = Awaiting(anywhere(methods.infer))
    ask = Awaiting(anywhere(proving.ask))
    tokenize = Awaiting(anywhere(methods.tokenize, query=True))
    decode = Awaiting(anywhere(methods.decode, query=True))
    decode_each = Awaiting(anywhere(methods.decode_each, query=True))
    logits = Awaiting(anywhere(methods.logits))
    score = Awaiting(anywhere(methods.score))
    info = Awaiting(info)

    async def stream(self, prompt: str | Sequence[int], **options: Any) -> AsyncFleetStream:
        """The answer piece by piece as it is written; takes what `complete` takes."""
        member, job = await self.run(begin(self, [], prompt, options))
        return AsyncFleetStream(self, member, job, prompt, options)

    async def close(self) -> None:
        """Ends the connections."""
        await self.agent.close()


class AsyncFleetStream(_FleetJob):
    """A running job; `async for` gives its pieces as `FleetStream` does."""

    def __init__(
        self, fleet: AsyncFleet, member: Member, job: bytes, prompt: Any, options: dict[str, Any]
    ) -> None:
        super().__init__(fleet, member, job, prompt, options)
        self.fleet = fleet

    async def __aiter__(self) -> AsyncIterator[Completion]:
        try:
            while (piece := await self.fleet.run(self.next_piece())) is not None:
                yield piece
        finally:
            self.release()
        self.check()

    async def cancel(self) -> None:
        """Ends the job."""
        await self.fleet.run(methods.cancel(self.member, self.job))

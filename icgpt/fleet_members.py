"""The canisters of a fleet: whose turn it is, who is set aside, and when to go on to another.

A call goes to the canister with the fewest open calls of this client; among equals, to the one
whose turn was longest ago. Who stays asks the same one as long as it takes calls. A canister that
refuses is asked last for a while: a second, doubling to a minute. Nobody tells how many jobs of
others a canister has; one that is full refuses at once, before anything is begun.
"""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from icgpt.errors import (
    CanisterError,
    IcgptError,
    MalformedError,
    NetworkError,
    NoCanisterLeftError,
    RejectedError,
    UsageError,
)
from icgpt.methods import Handle
from icgpt.protocol import Caller
from icgpt.steps import Steps

P = ParamSpec("P")
T = TypeVar("T")

FIRST_REST: Final = 1.0
LONGEST_REST: Final = 60.0
# Reject codes 1 to 3: the platform itself took no message. The others by their error code: stopped,
# stopping, out of cycles, no module, no such method.
_NOT_TAKEN: Final = (1, 2, 3)
_NOT_RUN: Final = ("IC0207", "IC0501", "IC0508", "IC0509", "IC0536", "IC0537")
# How a canister's refusals begin that are about itself and not about what was asked.
_OWN_REFUSALS: Final = (
    "busy: ",
    "no model is set up",
    "no tokenizer is set up",
    "setup_model is running",
    "the weights are packed in the layout of another version",
    "the weights were uploaded packed in the layout of another version",
)
_OWN_WORDS: Final = (
    "jobs are running or waiting already",
    "are left of today's quota",
    "below which it takes no new work",
)

Tell = Callable[[str, IcgptError], None]
"""Told of a canister's name and why another one is asked."""


class Member(Handle):
    """A canister of a fleet."""

    def __init__(self, agent: Caller, name: str, canister: bytes) -> None:
        self.agent = agent
        self.name = name
        self.id = canister
        self.open = 0
        """Calls and jobs of this client that have not ended."""
        self.turn = 0
        self.rest = 0.0
        self.rests_until = 0.0


class Members:
    """All canisters of a fleet; threads may share it."""

    def __init__(
        self,
        agent: Caller,
        canisters: dict[str, bytes],
        tell: Tell | None = None,
        stay: bool = False,
    ) -> None:
        if not canisters:
            raise UsageError("a fleet has one canister at least")
        self.all = [Member(agent, name, canister) for name, canister in canisters.items()]
        self.tell = tell or (lambda name, error: None)
        self._turns = 0
        self._stay = stay
        self._last: Member | None = None
        self._lock = threading.Lock()

    def take(self, tried: Sequence[tuple[str, IcgptError]]) -> Member | None:
        """The one to ask, with a call more; None when each has been tried."""
        gone = {name for name, _ in tried}
        with self._lock:
            now = time.monotonic()
            left = [one for one in self.all if one.name not in gone]
            if not left:
                return None
            stays = self._last if self._stay else None
            chosen = min(
                left,
                key=lambda one: (one.rests_until > now, one is not stays, one.open, one.turn),
            )
            self._last = chosen
            self._turns += 1
            chosen.turn = self._turns
            chosen.open += 1
            return chosen

    def give_back(self, member: Member) -> None:
        """A call of this canister has ended."""
        with self._lock:
            member.open -= 1

    def answered(self, member: Member) -> None:
        """It works: nothing speaks against asking it."""
        member.rest = member.rests_until = 0.0

    def set_aside(
        self, member: Member, error: IcgptError, tried: list[tuple[str, IcgptError]]
    ) -> None:
        """Another one is asked before this one for a while."""
        member.rest = min(max(2 * member.rest, FIRST_REST), LONGEST_REST)
        member.rests_until = time.monotonic() + member.rest
        tried.append((member.name, error))
        self.tell(member.name, error)


def in_any_order(canisters: dict[str, bytes]) -> dict[str, bytes]:
    """The same in a drawn order: programs that ask once each must not all ask the first."""
    return dict(random.sample(list(canisters.items()), len(canisters)))


class Group:
    """What has methods made by `anywhere`."""

    members: Members


def anywhere(
    function: Callable[Concatenate[Any, P], Steps[T]], *, query: bool = False
) -> Callable[Concatenate[Any, P], Steps[T]]:
    """A canister's method as the fleet's: by whichever canister takes it.

    Args:
        function: of `icgpt.methods`.
        query: it changes nothing, so it may be asked again after any failure of a canister.
    """

    @functools.wraps(function)
    def steps(fleet: Group, /, *arguments: P.args, **options: P.kwargs) -> Steps[T]:
        tried: list[tuple[str, IcgptError]] = []
        while (member := fleet.members.take(tried)) is not None:
            try:
                result = yield from function(member, *arguments, **options)
            except IcgptError as error:
                if not (unavailable(error) if query else not_begun(error)):
                    raise
                fleet.members.set_aside(member, error, tried)
            else:
                fleet.members.answered(member)
                return result
            finally:
                fleet.members.give_back(member)
        raise none_left(tried)

    return steps


def not_begun(error: IcgptError) -> bool:
    """Whether a canister certainly did nothing, and another one may do it instead."""
    match error:
        case CanisterError():
            words = error.message
            return words.startswith(_OWN_REFUSALS) or any(one in words for one in _OWN_WORDS)
        case RejectedError():
            return error.reject_code in _NOT_TAKEN or error.error_code in _NOT_RUN
        case MalformedError():
            return False
        case NetworkError():
            return not error.maybe_sent
    return False


def unavailable(error: IcgptError) -> bool:
    """Whether a canister could not be asked; what it did before is not the question."""
    return isinstance(error, NetworkError) or not_begun(error)


def none_left(tried: list[tuple[str, IcgptError]]) -> IcgptError:
    """The error when each has been tried: its own when they all failed alike by the network."""
    if all(isinstance(error, NetworkError) for _, error in tried):
        return tried[-1][1]
    return NoCanisterLeftError(tried)

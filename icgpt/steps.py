"""The protocol without the network: what is to be done comes out step by step, answers go in.

Everything that talks to a network is written once, as a generator that yields steps (an HTTP
request, a pause) and is sent what came of them. Whoever drives it decides how the waiting is done:
`run` blocks, `run_async` awaits. `Blocking` and `Awaiting` make methods of such generators.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """An HTTP request, to be tried once."""

    path: str
    body: bytes | None
    """CBOR to POST; None is a GET."""
    seconds: float
    """For all of it: connecting, sending, and the last byte of the answer."""
    fresh: bool = False
    """On a connection of its own: what came over the others made no sense."""


@dataclass(frozen=True)
class Pause:
    """Some seconds in which nothing is done."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """An HTTP answer that came in whole."""

    status: int
    body: bytes
    wait: float | None = None
    """How many seconds to wait before asking again, where the answer says so."""

    @property
    def text(self) -> str:
        """The beginning of the body, for messages."""
        text = self.body[:500].decode("utf-8", "replace").strip()
        return text if text.replace("\n", "").isprintable() else f"{len(self.body):,} bytes"


@dataclass(frozen=True)
class Fault:
    """Why no answer came."""

    reason: str
    passing: bool = True
    """Whether trying again may help."""
    sent: bool = True
    """Whether the network may have got the request."""
    untrusted: bool = False
    """Whether the other side could not show that it is who it should be."""
    answered: bool = False
    """Whether it did answer, with something that is not read."""


Step: TypeAlias = Request | Pause
Outcome: TypeAlias = Answer | Fault | None
Steps: TypeAlias = Generator[Step, Outcome, T]


def run(steps: Steps[T], perform: Callable[[Step], Outcome]) -> T:
    """Takes all steps, waiting for each; the generator's result."""
    outcome: Outcome = None
    try:
        while True:
            outcome = perform(steps.send(outcome))
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()


async def run_async(steps: Steps[T], perform: Callable[[Step], Awaitable[Outcome]]) -> T:
    """The same, leaving the event loop free meanwhile."""
    outcome: Outcome = None
    try:
        while True:
            outcome = await perform(steps.send(outcome))
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()


class Runner(Protocol):
    """What has methods made by `Blocking`."""

    def run(self, steps: Steps[T]) -> T:
        """Takes all steps."""


class AsyncRunner(Protocol):
    """What has methods made by `Awaiting`."""

    async def run(self, steps: Steps[T]) -> T:
        """Takes all steps."""


class Blocking(Generic[P, T]):
    """A method that takes the steps of a function and returns its result."""

    def __init__(self, function: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        @functools.wraps(function)
        def method(self: Runner, *arguments: P.args, **options: P.kwargs) -> T:
            return self.run(function(self, *arguments, **options))

        self._method = _with_result(method, function)

    def __get__(self, instance: object, owner: type | None = None) -> Callable[P, T]:
        return self._method.__get__(instance, owner)  # type: ignore[no-any-return]


class Awaiting(Generic[P, T]):
    """A method that takes the steps of a function; its result is awaited."""

    def __init__(self, function: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        @functools.wraps(function)
        async def method(self: AsyncRunner, *arguments: P.args, **options: P.kwargs) -> T:
            return await self.run(function(self, *arguments, **options))

        self._method = _with_result(method, function)

    def __get__(self, instance: object, owner: type | None = None) -> Callable[P, Awaitable[T]]:
        return self._method.__get__(instance, owner)  # type: ignore[no-any-return]


def _with_result(method: Any, function: Callable[..., Any]) -> Any:
    """Shows the result's own type in the signature, where the function says Steps[type]."""
    signature = inspect.signature(function)
    result = str(signature.return_annotation).removeprefix("Steps[").removesuffix("]")
    first, *others = signature.parameters.values()
    parameters = [first.replace(name="self", annotation=inspect.Parameter.empty), *others]
    method.__signature__ = signature.replace(parameters=parameters, return_annotation=result)
    return method

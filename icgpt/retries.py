"""When a request is sent again, and when it is given up: the same bytes, so the same request id.

Only what may pass by itself is tried again: broken connections, silence, and the answers 429, 502,
503 and 504, after a pause that doubles or that the network asks for. A pause is drawn, so that
many clients that were thrown out together do not come back together.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from icgpt.errors import BusyError, CallTimeoutError, MalformedError, NetworkError
from icgpt.steps import Answer, Fault, Pause, Request, Steps

TRANSIENT: Final = frozenset({429, 502, 503, 504})
BUSY: Final = frozenset({429, 503})
_STATUS_END: Final = 600
_ATTEMPTS: Final = 3  # at least, where there is time for them
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 3.0


@dataclass(frozen=True)
class Limits:
    """How long a call may take, in seconds; each call as a whole ends within its limit."""

    query: float = 90.0
    """A query, or a look at the system's state."""
    update: float = 600.0
    """An update call."""
    exchange: float = 40.0
    """One HTTP request and its answer; after that it is tried again."""
    patience: float = 15.0
    """How long a network that doesn't answer is asked again."""


class OutOfTimeError(CallTimeoutError):
    """A request was tried until its call's deadline."""


class Backoff:
    """Pauses that grow."""

    def __init__(self) -> None:
        self._longest = _FIRST_PAUSE

    def next(self) -> float:
        """The next pause, in seconds."""
        pause = random.uniform(self._longest / 2, self._longest)
        self._longest = min(2 * self._longest, _LONGEST_PAUSE)
        return pause


def send(
    url: str,
    path: str,
    body: bytes | None,
    deadline: float,
    limits: Limits,
    *,
    fresh: bool = False,
) -> Steps[Answer]:
    """An answer to a request; NetworkError when none came until `deadline` (monotonic seconds)."""
    backoff = Backoff()
    began = time.monotonic()
    maybe_sent = False
    attempts = 0
    outcome: Answer | Fault = Fault("no time was left to ask it", sent=False)
    late = True
    while (left := deadline - time.monotonic()) > 0:
        given = yield Request(path, body, min(left, limits.exchange), fresh or attempts > 1)
        if given is None:
            raise TypeError("a request was given no outcome")
        outcome = given
        attempts += 1
        if isinstance(outcome, Answer):
            if outcome.status not in TRANSIENT:
                return outcome
            pause = max(backoff.next(), outcome.wait or 0.0)
        else:
            maybe_sent = maybe_sent or outcome.sent
            pause = backoff.next()
        now = time.monotonic()
        tried = attempts >= _ATTEMPTS and now - began > limits.patience
        asked = isinstance(outcome, Answer) and outcome.wait
        late = now + pause > deadline
        passing = isinstance(outcome, Answer) or outcome.passing
        if late or not passing or (tried and not asked):
            break
        yield Pause(pause)
    if isinstance(outcome, Answer):
        error = http_error(url, outcome)
        error.maybe_sent = error.maybe_sent or maybe_sent
        raise error
    raise _no_answer(url, outcome, maybe_sent, late)


def http_error(url: str, answer: Answer) -> NetworkError:
    """The error of an answer whose status is none of those that are looked for."""
    text = f"{url} answered {answer.status}: {answer.text or 'no reason given'}"
    if not HTTPStatus.BAD_REQUEST <= answer.status < _STATUS_END:
        return MalformedError(text)  # an error is what the protocol has no other form for
    if answer.status in BUSY:
        return BusyError(text, _busy_hint(answer.wait))
    hint = "Check this machine's clock." if "expir" in answer.text.lower() else None
    # A gateway that got no answer says nothing of whether its request went through.
    return NetworkError(text, hint, maybe_sent=answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR)


def _busy_hint(wait: float | None) -> str | None:
    return None if wait is None else f"The network asks to wait {wait:.0f} seconds."


def _no_answer(url: str, fault: Fault, maybe_sent: bool, late: bool) -> NetworkError:
    if fault.untrusted:
        return NetworkError(
            f"the TLS certificate of {url} does not hold",
            "Is it the right address? Someone may be answering in its place.",
        )
    if fault.answered:
        return MalformedError(f"{url} sent {fault.reason}")
    return (OutOfTimeError if late and fault.passing else NetworkError)(
        f"{url} doesn't answer ({fault.reason})",
        "Is the network running? For the local one: icgpt network start",
        maybe_sent=maybe_sent,
    )

"""An answer on its way to the reader: pieces as they come, and a Ctrl-C that ends the job.

A job goes on in its canister whoever watches, so it is cancelled when its reader has enough, also
when that happens while it is still being submitted and has no id here yet.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from icgpt.errors import IcgptError
from icgpt.results import Completion

if TYPE_CHECKING:
    from icgpt.client import ModelCanister, Stream
    from icgpt.fleet import Fleet, FleetStream

    Pieces: TypeAlias = Stream | FleetStream

SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Written:
    """What was written, whether the reader ended it, and how long it took."""

    completion: Completion
    interrupted: bool
    seconds: float
    first_seconds: float | None
    """Until the first piece was shown; None when there was none."""


def write(
    model: ModelCanister | Fleet,
    prompt: str | Sequence[int],
    options: dict[str, Any],
    put: Callable[[str], None],
    begin: Callable[[str | Sequence[int], dict[str, Any]], Pieces] | None = None,
) -> Written:
    """Lets the model write and puts each piece of text as it comes. Ctrl-C cancels the job.

    `begin` starts the job in another way than `stream` does, of the same prompt and options.
    """
    began = time.monotonic()
    first = None
    stream: Pieces | None = None
    try:
        with _held_interrupts() as told:
            stream = model.stream(prompt, **options) if begin is None else begin(prompt, options)
        interrupted = bool(told)
        for piece in () if interrupted else stream:
            if piece.text:
                put(piece.text)
                first = first or time.monotonic() - began
    except KeyboardInterrupt:
        if stream is None:
            raise
        interrupted = True
    except BrokenPipeError:
        if stream is not None:
            stream.cancel()
        raise
    if interrupted:
        stream.cancel()
        _settle(stream, put)
    return Written(stream.completion, interrupted, time.monotonic() - began, first)


def _settle(stream: Pieces, put: Callable[[str], None]) -> None:
    """Puts what was written until the job was cancelled, for as long as that is quick."""
    deadline = time.monotonic() + SETTLE_SECONDS
    with contextlib.suppress(IcgptError):
        for piece in stream:
            put(piece.text or "")
            if time.monotonic() > deadline:
                return


@contextlib.contextmanager
def _held_interrupts() -> Iterator[list[int]]:
    """Notes a Ctrl-C instead of raising it; a second one is raised at once."""
    told: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def note(number: int, _frame: object) -> None:
        if told:
            raise KeyboardInterrupt
        told.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield told
    finally:
        signal.signal(signal.SIGINT, before)

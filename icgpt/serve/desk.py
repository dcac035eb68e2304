"""Where routes ask for answers: caps on what is asked, a bounded queue, and figures.

    async with desk.begin("ROMEO:", {"max_new_tokens": 20}) as answer:
        async for piece in answer:
            ...
    done = await desk.complete([1, 2, 3], {"temperature": 0})

Answers wait for their turn in the order in which they came. Who can't even wait is refused at once,
and told when to come again. Leaving early frees the place.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final

from fastapi import Depends, Request

from icgpt.results import TokenLogprobs
from icgpt.serve.backend import Answer, Backend, Piece
from icgpt.serve.errors import BusyError, PromptTooLongError
from icgpt.serve.figures import Figures
from icgpt.serve.record import record
from icgpt.serve.settings import Settings

_LONGEST_WAIT: Final = 60
_SHARE: Final = 0.2  # of the newest answer in the mean time of one


@dataclass
class Done:
    """A whole answer."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish: str | None = None
    seed: int | None = None
    prompt_tokens: int = 0
    others: list[Done] = field(default_factory=list)
    """The request's other answers, where several were asked for; a search's best comes first."""
    score: float | None = None

    def add(self, piece: Piece) -> None:
        """Takes a piece in."""
        if piece.index:
            while len(self.others) < piece.index:
                self.others.append(Done(seed=self.seed, prompt_tokens=self.prompt_tokens))
            self.others[piece.index - 1].add(replace(piece, index=0))
            return
        self.text += piece.text
        self.token_ids += piece.token_ids
        self.logprobs += piece.logprobs
        self.finish, self.score = piece.finish, piece.score


class Desk:
    """Takes requests for one backend.

    Args:
        backend: what writes.
        settings: the caps.
        figures: what is counted.
    """

    def __init__(self, backend: Backend, settings: Settings, figures: Figures) -> None:
        self.backend = backend
        self.settings = settings
        self.figures = figures
        self.running = 0
        """Answers that are being written."""
        self.waiting = 0
        """Answers that wait for their turn."""
        self._places = asyncio.Semaphore(self.places)
        self._mean_seconds = 1.0

    @property
    def places(self) -> int:
        """Answers that are written at the same time at most."""
        return self.settings.at_once * self.backend.slots

    @property
    def max_context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return min(self.settings.max_context, self.backend.facts.n_ctx)

    async def token_ids(self, prompt: str | Sequence[int]) -> list[int]:
        """The ids of a prompt; where a text has none it can't be gone on from."""
        return await self.backend.tokenize(prompt) if isinstance(prompt, str) else list(prompt)

    def fitted(self, count: int, options: dict[str, Any]) -> dict[str, Any]:
        """Options that keep to the caps for a prompt of so many tokens.

        PromptTooLongError where no answer has room behind it.
        """
        facts = self.backend.facts
        if facts.template is not None and options.get("template") is not False:
            count += len(facts.template.prefix) + len(facts.template.suffix)
        slides = (options.get("context") or facts.context) == "slide"
        room = self.max_context - (0 if slides else count)
        if room < 1 or count > self.max_context:
            raise PromptTooLongError(
                f"the prompt has {count:,} tokens, and the context is {self.max_context:,}",
                "Ask for less at once.",
            )
        most = self.settings.max_tokens if slides else min(self.settings.max_tokens, room)
        longest = min(options.get("max_new_tokens") or most, most)
        fitted = {**options, "max_new_tokens": longest}
        if options.get("min_new_tokens"):
            fitted["min_new_tokens"] = min(options["min_new_tokens"], longest)
        return {name: value for name, value in fitted.items() if value is not None}

    @contextlib.asynccontextmanager
    async def begin(
        self, prompt: str | Sequence[int], options: dict[str, Any]
    ) -> AsyncIterator[Answer]:
        """An answer that is being written, once it is its turn.

        Args:
            prompt: a text, or token ids.
            options: as in docs/options.md, and kept to the caps.
        """
        ids = await self.token_ids(prompt)
        options = self.fitted(len(ids), options)
        noted = record()
        if self.settings.log_prompts:
            noted.prompts.append(prompt if isinstance(prompt, str) else await self.text(prompt))
        async with self._place():
            began = time.monotonic()
            async with self.backend.begin(ids, options) as answer:
                noted.prompt_tokens += answer.prompt_tokens
                self.figures.tokens.labels("prompt").inc(answer.prompt_tokens)
                yield _Counted(answer, self)
            self._mean_seconds += _SHARE * (time.monotonic() - began - self._mean_seconds)

    async def complete(self, prompt: str | Sequence[int], options: dict[str, Any]) -> Done:
        """A whole answer; takes what `begin` takes."""
        done = Done()
        async with self.begin(prompt, options) as answer:
            done.seed, done.prompt_tokens = answer.seed, answer.prompt_tokens
            async for piece in answer:
                done.add(piece)
        return done

    async def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
        """Log-probabilities of a continuation's tokens, in its turn."""
        if len(prompt) + len(continuation) > self.max_context + 1:
            raise PromptTooLongError(
                f"these are {len(prompt) + len(continuation):,} tokens, and the context is "
                f"{self.max_context:,}",
                "Ask for less at once.",
            )
        async with self._place():
            return await self.backend.score(prompt, continuation)

    async def text(self, token_ids: Sequence[int]) -> str:
        """The text of token ids."""
        return await self.backend.decode(token_ids)

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Waits for a place and holds it; BusyError where too many wait."""
        if self._places.locked() and self.waiting >= self.settings.queue:
            turns = math.ceil((self.waiting + 1) / self.places)
            wait = min(max(1, math.ceil(turns * self._mean_seconds)), _LONGEST_WAIT)
            raise BusyError(
                f"{self.waiting} answers wait already", "Try again later.", retry_after=wait
            )
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()


class _Counted:
    """An answer whose tokens are counted."""

    def __init__(self, answer: Answer, desk: Desk) -> None:
        self._answer = answer
        self._desk = desk
        self.seed = answer.seed
        self.prompt_tokens = answer.prompt_tokens

    async def __aiter__(self) -> AsyncIterator[Piece]:
        noted = record()
        figures = self._desk.figures
        async for piece in self._answer:
            self.seed = self._answer.seed
            if piece.token_ids and noted.first_token is None:
                noted.first_token = time.monotonic()
                figures.first_token.observe(noted.first_token - noted.began)
            noted.completion_tokens += len(piece.token_ids)
            figures.tokens.labels("completion").inc(len(piece.token_ids))
            if self._desk.settings.log_prompts:
                noted.answers.append(piece.text)
            if piece.finish is not None:
                noted.finishes.append(piece.finish)
            yield piece


def _desk_of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


TheDesk = Annotated[Desk, Depends(_desk_of)]
"""The desk of the application, for a route's functions."""

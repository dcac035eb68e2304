"""What can write behind a service: the interface that routes use, whatever is behind it.

    async with backend.begin(token_ids, options) as answer:
        async for piece in answer:
            ...

Leaving the `async with` before the end drops the answer, and what it held is free again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from icgpt.results import Template, TokenLogprobs


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model."""

    name: str
    backend: str
    """"local" or "canister"."""
    parameters: int
    precision: str
    n_ctx: int
    vocab_size: int
    context: str
    """What happens when the context is full: "stop" or "slide"."""
    template: Template | None
    tokenizer: bool
    fingerprint: str
    """Differs between models that answer differently."""


@dataclass(frozen=True)
class Piece:
    """What is new of an answer."""

    text: str
    """Whole characters, and nothing of a stop string."""
    token_ids: list[int]
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    """One for each new token, if they were asked for."""
    finish: str | None = None
    """"stop", "length", "context" or "cancelled" with the last piece; None before."""
    index: int = 0
    """Which of the request's answers; more than one only where several were asked for."""
    score: float | None = None
    """What a search thinks of the answer, with its last piece."""


class Answer(Protocol):
    """An answer that is being written; iterating gives its pieces."""

    seed: int | None
    """With this seed the same answer can be had again; None where only the last piece tells."""
    prompt_tokens: int
    """Length of the prompt, template included."""

    def __aiter__(self) -> AsyncIterator[Piece]: ...


class Backend(Protocol):
    """A model that writes for many at once."""

    facts: ModelFacts
    restarts: int
    """How often something that writes had to be started again."""

    async def start(self) -> None:
        """Makes it ready; raises IcgptError where that can't be done."""

    async def close(self) -> None:
        """Gives back what it holds."""

    def alive(self) -> bool:
        """Whether it can write just now."""

    @property
    def slots(self) -> int:
        """How many engines share the work."""

    def begin(
        self, token_ids: Sequence[int], options: dict[str, Any]
    ) -> AbstractAsyncContextManager[Answer]:
        """Takes a request in: the prompt's ids, and options as in docs/options.md.

        Raises UsageError on entering where the request makes no sense.
        """

    async def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
        """Log-probabilities of a continuation's tokens."""

    async def tokenize(self, text: str) -> list[int]:
        """A text's token ids; UsageError for characters that the model does not know."""

    async def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids."""

    async def decode_each(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token id by itself."""

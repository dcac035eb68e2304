"""A model in a canister, or in several that are one fleet: its jobs, read as they are written.

The service asks as one identity, whoever asks the service. A caller who leaves ends their job, and
the service does not wait for that: on mainnet it takes a second or two.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, TypeAlias

from icgpt.client import AsyncModelCanister, AsyncStream
from icgpt.errors import IcgptError
from icgpt.fleet import AsyncFleet, AsyncFleetStream
from icgpt.results import Completion, ModelInfo
from icgpt.serve.backend import ModelFacts, Piece
from icgpt.serve.errors import DownError
from icgpt.texts import check_known

Remote: TypeAlias = AsyncModelCanister | AsyncFleet
Stream: TypeAlias = AsyncStream | AsyncFleetStream

_CHECK_SECONDS: Final = 15.0


class CanisterAnswer:
    """An answer of a canister's job."""

    def __init__(self, first: Completion, rest: AsyncIterator[Completion]) -> None:
        self._first = first
        self._rest = rest
        self.seed: int | None = first.seed
        self.prompt_tokens = first.prompt_tokens

    async def __aiter__(self) -> AsyncIterator[Piece]:
        for piece in _pieces(self._first):
            yield piece
        async for more in self._rest:
            for piece in _pieces(more):
                yield piece


class CanisterBackend:
    """Writes by a canister's jobs.

    Args:
        model: the canister or the fleet.
        name: what the model is called.
    """

    slots = 1
    restarts = 0

    def __init__(self, model: Remote, name: str) -> None:
        self._model = model
        self._name = name
        self._there = False
        self._checking: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Asks the canister what it has."""
        info = await self._model.info()
        self.facts = _facts(info, self._name)
        self._there = True
        self._checking = asyncio.create_task(self._check())

    async def _check(self) -> None:
        """Looks now and then whether the canister still answers."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            try:
                self._there = (await self._model.info()).ready
            except IcgptError:
                self._there = False

    def alive(self) -> bool:
        """Whether the canister answered when it was last asked."""
        return self._there

    async def close(self) -> None:
        """Ends the connections, once the jobs that were left are ended."""
        if self._checking is not None:
            self._checking.cancel()
        if self._leaving:
            await asyncio.wait(self._leaving)
        await self._model.close()

    @contextlib.asynccontextmanager
    async def begin(
        self, token_ids: Sequence[int], options: dict[str, Any]
    ) -> AsyncIterator[CanisterAnswer]:
        """Takes a request in; see `Backend`."""
        submitting: asyncio.Task[Stream] = asyncio.create_task(
            self._model.stream(list(token_ids), **options)
        )
        try:
            pieces = aiter(await asyncio.shield(submitting))
            yield CanisterAnswer(await anext(pieces), pieces)
        finally:
            leaving = asyncio.create_task(_leave(submitting))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
        """Log-probabilities of a continuation's tokens."""
        return await self._model.score(list(prompt), list(continuation))

    async def tokenize(self, text: str) -> list[int]:
        """A text's token ids."""
        if not text:
            return []
        ids = (await self._model.tokenize(text)).token_ids
        check_known(text, await self._model.decode(ids))
        return ids

    async def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids."""
        return await self._model.decode(list(token_ids)) if token_ids else ""

    async def decode_each(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token id by itself."""
        return await self._model.decode_each(list(token_ids)) if token_ids else []


async def _leave(submitting: asyncio.Task[Stream]) -> None:
    """Ends a job that nobody waits for, as soon as it has an id here."""
    with contextlib.suppress(IcgptError):  # refused, or ended by itself
        stream = await submitting
        if stream.completion.finish is None:
            await stream.cancel()


def _pieces(found: Completion) -> Iterator[Piece]:
    """What is new; with the end of several answers all but the first of them, and that then."""
    several = found.sequences or []
    for index, one in enumerate(several[1:], 1):
        yield Piece(one.text or "", one.token_ids, one.logprobs or [], one.finish, index, one.score)
    score = several[0].score if several else None
    yield Piece(found.text or "", found.token_ids, found.logprobs or [], found.finish, 0, score)


def _facts(info: ModelInfo, name: str) -> ModelFacts:
    shape = info.architecture
    if not info.ready or shape is None:
        raise DownError(f"the canister '{name}' has no model yet", f"icgpt upload {name} MODEL")
    if not info.tokenizer:
        raise DownError(
            f"the model in '{name}' has no tokenizer, and texts need one",
            "Upload the model again with its tokenizer.json.",
        )
    layout = info.layout_sha256 or b""
    return ModelFacts(
        name=name,
        backend="canister",
        parameters=shape.parameters,
        precision=info.precision,
        n_ctx=shape.n_ctx,
        vocab_size=shape.vocab_size,
        context=info.context,
        template=info.template,
        tokenizer=info.tokenizer,
        fingerprint=layout.hex()[:16],
    )

"""A model on this machine: engines in processes of their own, and texts round them.

Requests go to the engine that has the fewest. When an engine's process ends, another one takes its
place, and its answers go on there from the tokens that are known: the same model, options and seed
give the same answer, so nobody notices more than a pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from icgpt.checkpoint import Checkpoint
from icgpt.engine import EngineMemoryError
from icgpt.errors import IcgptError
from icgpt.serve import log
from icgpt.serve.backend import ModelFacts, Piece
from icgpt.serve.errors import DownError
from icgpt.serve.instances import Instance, Job, News
from icgpt.serve.text import Visible
from icgpt.texts import check_known, load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PRECISION: Final = "int8"
_LIVES: Final = 5  # engines that may end under one answer, and none gets on, until it is given up
_GIVEN_UP: Final = "the engine ended again and again under this request"
_PATIENCE: Final = 60.0  # seconds that a request waits for an engine to be there
_PAUSE: Final = 0.5  # seconds between two tries to start an engine that does not stay


class LocalAnswer:
    """An answer of an engine."""

    def __init__(self, backend: LocalBackend, job: Job, stop: Sequence[str]) -> None:
        self._backend = backend
        self._job = job
        self._stop = stop
        self.seed: int | None = job.seed
        self.prompt_tokens = job.prompt_tokens

    async def __aiter__(self) -> AsyncIterator[Piece]:
        visible: dict[int, Visible] = {}
        left = self._job.sequences
        while left:
            news = await self._backend.next_news(self._job)
            if news.finish == "failed":
                raise IcgptError(news.failure or "the model could not go on")
            left -= news.finish is not None
            shown = visible.setdefault(news.index, Visible(self._backend.decode_now, self._stop))
            text = shown.add(news.token_ids, news.finish is not None)
            yield Piece(text, news.token_ids, news.logprobs, news.finish, news.index, news.score)


class LocalBackend:
    """Writes with a checkpoint's weights.

    Args:
        checkpoint: the model; it must have a tokenizer.
        precision: "f32", "int8" or "int16".
        instances: how many engines there are.
        name: what the model is called.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: str = PRECISION,
        instances: int = 1,
        name: str | None = None,
    ) -> None:
        self._tokenizer: Tokenizer = load_tokenizer(checkpoint)
        config = checkpoint.config
        weights = checkpoint.files["safetensors"]
        marks = f"{weights.sha256().hex()} {precision}".encode()
        self.facts = ModelFacts(
            name=name or checkpoint.name,
            backend="local",
            parameters=checkpoint.parameters,
            precision=precision,
            n_ctx=config.n_ctx,
            vocab_size=config.vocab_size,
            context=config.context,
            template=config.template,
            tokenizer=True,
            fingerprint=hashlib.sha256(marks).hexdigest()[:16],
        )
        self.restarts = 0
        """Engines that had to be started again."""
        self._instances = [Instance(checkpoint, precision) for _ in range(instances)]
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def slots(self) -> int:
        """How many engines share the work."""
        return len(self._instances)

    def alive(self) -> bool:
        """Whether any engine runs."""
        return any(one.ready.is_set() for one in self._instances)

    def workers(self) -> list[int]:
        """Process ids of the engines that run."""
        return [one.pid for one in self._instances if one.ready.is_set()]

    async def start(self) -> None:
        """Starts all engines; raises what the first of them fails by."""
        try:
            await asyncio.gather(*(one.start() for one in self._instances))
        except BaseException:
            await self.close()
            raise
        self._keepers = [asyncio.create_task(self._keep(one)) for one in self._instances]

    async def _keep(self, instance: Instance) -> None:
        """Starts an engine again whenever its process has ended."""
        while True:
            await instance.ended()
            log.say("engine ended", model=self.facts.name)
            self.restarts += 1
            while not instance.ready.is_set():
                try:
                    await instance.start()
                except (IcgptError, OSError):
                    await asyncio.sleep(_PAUSE)

    async def close(self) -> None:
        """Ends all engines."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in self._instances))

    @contextlib.asynccontextmanager
    async def begin(
        self, token_ids: Sequence[int], options: dict[str, Any]
    ) -> AsyncIterator[LocalAnswer]:
        """Takes a request in; see `Backend`."""
        job = Job(list(token_ids), options)
        try:
            await self._place(job)
            yield LocalAnswer(self, job, options.get("stop") or ())
        finally:
            job.leave()

    async def next_news(self, job: Job) -> News:
        """What an engine tells next of an answer, whichever engine that is."""
        while (news := await job.next()) is None:
            await self._place(job)
        return news

    async def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
        """Log-probabilities of a continuation's tokens."""
        for _ in range(_LIVES):
            found = await (await self._fewest()).score(list(prompt), list(continuation))
            if found is not None:
                return found
        raise DownError(_GIVEN_UP)

    async def tokenize(self, text: str) -> list[int]:
        """A text's token ids."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        check_known(text, str(self._tokenizer.decode(ids, skip_special_tokens=False)))
        return ids

    async def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids."""
        return self.decode_now(token_ids)

    async def decode_each(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token id by itself."""
        return [str(self._tokenizer.decode([one], skip_special_tokens=False)) for one in token_ids]

    def decode_now(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special ones left out."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    async def _place(self, job: Job) -> None:
        """Brings a request to an engine that takes it, waiting for room where all are full."""
        while job.lives < _LIVES:
            instance = await self._fewest()
            try:
                if await instance.submit(job):
                    return
                job.lives += 1
            except EngineMemoryError:
                if not instance.jobs:
                    raise
                await instance.room()
        raise DownError(_GIVEN_UP)

    async def _fewest(self) -> Instance:
        """The engine that has the fewest requests, as soon as one runs."""
        while not (running := [one for one in self._instances if one.ready.is_set()]):
            waits = [asyncio.ensure_future(one.ready.wait()) for one in self._instances]
            try:
                done, _ = await asyncio.wait(
                    waits, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                for wait in waits:
                    wait.cancel()
            if not done:
                raise DownError("no engine is running", retry_after=10)
        return min(running, key=lambda one: len(one.jobs))

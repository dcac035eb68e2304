"""An engine's process as the service sees it, and the requests that it works on.

Lines go both ways, as `icgpt.serve.worker` says. When the process ends, all who wait for something
of it get None, and bring what is left of their request elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import icgpt
from icgpt.checkpoint import Checkpoint
from icgpt.engine import EngineMemoryError
from icgpt.errors import CheckpointError, IcgptError, UsageError
from icgpt.results import Logprob, TokenLogprobs
from icgpt.serve.worker import Message, files_of

_MAX_LINE: Final = 64 << 20
_GRACE: Final = 5.0  # seconds that a process has to end by itself
_KINDS: Final[dict[str, type[IcgptError]]] = {
    one.kind: one for one in (UsageError, CheckpointError, EngineMemoryError)
}


@dataclass(frozen=True)
class News:
    """What an engine tells of an answer."""

    token_ids: list[int]
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish: str | None = None
    failure: str | None = None
    index: int = 0
    """Which of the request's answers."""
    score: float | None = None


class Job:
    """A request, and what is known of its answer: enough to go on with it elsewhere."""

    def __init__(self, token_ids: list[int], options: dict[str, Any]) -> None:
        self.token_ids = token_ids
        self.seed: int | None = None
        self.prompt_tokens = 0
        self.sequences = 1
        """How many answers there will be."""
        self.lives = 0
        """Engines that ended under it since its last token."""
        self._options = options
        self._written: dict[int, list[int]] = {}
        self._known: dict[int, int] = {}
        self._news: asyncio.Queue[News | None] = asyncio.Queue()
        self._instance: Instance | None = None
        self._number = 0

    def options(self) -> dict[str, Any]:
        """Its options, with what has been written and drawn so far.

        Of several answers none can be gone on with: they are written anew, to be the same.
        """
        options = dict(self._options)
        if self.seed is not None:
            options["seed"] = self.seed
        if self.sequences > 1:
            self._known = {index: len(ids) for index, ids in self._written.items()}
        elif self._written:
            options["begun"] = self._written[0]
        return options

    def taken(self, instance: Instance, number: int, answer: Message) -> None:
        """An engine works on it."""
        self._instance, self._number = instance, number
        self.seed, self.prompt_tokens = answer["seed"], answer["prompt"]
        self.sequences = answer["sequences"]

    def put(self, news: News | None) -> None:
        """Takes what an engine tells; None when it has ended."""
        if news is None:
            self.lives += 1
            self._instance = None
        else:
            news = self._unknown(news)
            self._written.setdefault(news.index, []).extend(news.token_ids)
            self.lives = 0
        self._news.put_nowait(news)

    def _unknown(self, news: News) -> News:
        """What is new of the news, where an answer is written again."""
        known = self._known.get(news.index, 0)
        if not known:
            return news
        self._known[news.index] = max(0, known - len(news.token_ids))
        return replace(news, token_ids=news.token_ids[known:], logprobs=news.logprobs[known:])

    async def next(self) -> News | None:
        """What is new of one answer."""
        return await self._news.get()

    def leave(self) -> None:
        """Nobody waits for it any more."""
        if self._instance is not None:
            self._instance.cancel(self._number)
            self._instance = None


class Instance:
    """One engine's process.

    Args:
        checkpoint: the model that it loads.
        precision: how its weights are held.
    """

    def __init__(self, checkpoint: Checkpoint, precision: str) -> None:
        self._first = files_of(checkpoint, precision)
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Message | None]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._left = asyncio.Event()
        self.jobs: dict[int, Job] = {}
        """Requests that it works on."""
        self.ready = asyncio.Event()
        """Set while it runs."""
        self.memory = 0
        """Bytes that the engine had when it was loaded."""

    @property
    def pid(self) -> int:
        """The process's id; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Starts the process and waits until the model is loaded."""
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "icgpt.serve.worker"),
            env=_environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_MAX_LINE,
            start_new_session=True,  # the terminal's Ctrl-C is for the service
        )
        try:
            self._send(self._first)
            line = await self._line()
        except BaseException:
            process.kill()
            raise
        if line is None or "failed" in line:
            await process.wait()
            raise _error(line["failed"] if line else ["engine", "the engine did not start", None])
        self.memory = line["ready"]
        self.ready.set()
        self._reader = asyncio.create_task(self._read())

    async def ended(self) -> None:
        """Waits until the process has ended."""
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def submit(self, job: Job) -> bool:
        """Lets the engine work on a request; UsageError or EngineMemoryError where it can't.

        False when its process ended before it had taken it in.
        """
        number = next(self._numbers)
        self.jobs[number] = job  # its first news may come right behind the engine's answer
        try:
            taken = await self._ask(
                number, do="submit", token_ids=job.token_ids, options=job.options()
            )
        except BaseException:
            self.cancel(number)
            raise
        if taken is None:
            return False
        job.taken(self, number, taken)
        return True

    def cancel(self, number: int) -> None:
        """Lets a request go."""
        if self.jobs.pop(number, None) is not None:
            self._room()
            if self.ready.is_set():
                self._send({"do": "cancel", "id": number})

    async def score(self, prompt: list[int], continuation: list[int]) -> list[float] | None:
        """Log-probabilities of a continuation's tokens; None when the process ended."""
        number = next(self._numbers)
        found = await self._ask(number, do="score", token_ids=prompt, continuation=continuation)
        return None if found is None else list(found["scores"])

    async def room(self) -> None:
        """Waits until a request has left."""
        await self._left.wait()

    async def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_GRACE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def _ask(self, number: int, **message: Any) -> Message | None:
        """Sends a request and waits for its answer; None when the process ended."""
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"id": number, **message})
            found = await asked
        finally:
            self._asked.pop(number, None)
        if found is not None and "error" in found:
            raise _error(found["error"])
        return found

    def _send(self, message: Message) -> None:
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _line(self) -> Message | None:
        if self._process is None or self._process.stdout is None:
            return None
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        message: Message = json.loads(line)
        return message

    async def _read(self) -> None:
        """Hands out what the process tells, until it ends."""
        try:
            while (message := await self._line()) is not None:
                self._tell(message)
        finally:
            self.ready.clear()
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
            jobs, self.jobs = self.jobs, {}
            for number, asked in self._asked.items():
                if not asked.done():
                    asked.set_result(None)
                    jobs.pop(number, None)  # who waits for this hears of it by the answer
            for job in jobs.values():
                job.put(None)
            self._room()

    def _tell(self, message: Message) -> None:
        number = message["id"]
        asked = self._asked.get(number)
        if asked is not None and not asked.done():
            asked.set_result(message)
        elif (job := self.jobs.get(number)) is not None and "token_ids" in message:
            if message.get("last"):
                del self.jobs[number]
                self._room()
            job.put(_news(message))

    def _room(self) -> None:
        """Wakes those who wait for a request to leave."""
        self._left.set()
        self._left = asyncio.Event()


def _environment() -> dict[str, str]:
    """This process's own, in which the package is the one that runs here, wherever it lies."""
    places = [str(Path(icgpt.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}


def _news(message: Message) -> News:
    places = [
        TokenLogprobs(Logprob(*chosen), [Logprob(*one) for one in top])
        for chosen, *top in message.get("logprobs", ())
    ]
    return News(
        message["token_ids"],
        places,
        message.get("finish"),
        message.get("failure"),
        message.get("index", 0),
        message.get("score"),
    )


def _error(told: list[Any]) -> IcgptError:
    kind, message, hint = told
    return _KINDS.get(kind, IcgptError)(message, hint)

"""Several answers written at once for one request, whole or piece by piece.

All of them end when the request does: an answer that nobody reads any more is not written on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from icgpt.serve.backend import Piece
from icgpt.serve.desk import Desk, Done

T = TypeVar("T")
_SEEDS = 1 << 64


def with_seeds(options: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Options of each of several answers to a prompt: seeds that follow each other."""
    if options.get("seed") is None:
        return [options] * count
    return [{**options, "seed": (options["seed"] + place) % _SEEDS} for place in range(count)]


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; when one fails, the others are given up."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Stream:
    """Answers piece by piece, as they come. To be started, and closed.

    Args:
        desk: where they are asked for.
        asked: prompt and options of each.
    """

    def __init__(self, desk: Desk, asked: Sequence[tuple[list[int], dict[str, Any]]]) -> None:
        self._desk = desk
        self._asked = asked
        self._news: asyncio.Queue[tuple[int, Piece] | Exception] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._first: tuple[int, Piece] | None = None
        self.done = [Done() for _ in asked]
        """What has been written of each."""

    async def start(self) -> None:
        """Begins, and waits for the first piece: what is refused is raised here."""
        self._tasks = [asyncio.create_task(self._write(place)) for place in range(len(self._asked))]
        try:
            self._first = await self._next()
        except BaseException:
            await self.close()
            raise

    async def _write(self, place: int) -> None:
        prompt, options = self._asked[place]
        try:
            async with self._desk.begin(prompt, options) as answer:
                self.done[place].prompt_tokens = answer.prompt_tokens
                async for piece in answer:
                    self._news.put_nowait((place, piece))
        except Exception as error:  # noqa: BLE001 - whoever reads the stream gets it
            self._news.put_nowait(error)

    async def _next(self) -> tuple[int, Piece]:
        news = await self._news.get()
        if isinstance(news, Exception):
            raise news
        return news

    async def __aiter__(self) -> AsyncIterator[tuple[int, Piece]]:
        left = len(self._asked)
        while left:
            place, piece = self._first or await self._next()
            self._first = None
            self.done[place].add(piece)
            left -= piece.finish is not None
            yield place, piece

    async def close(self) -> None:
        """Gives up what is not finished."""
        await _end(self._tasks)

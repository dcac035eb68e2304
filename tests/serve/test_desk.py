"""The desk over engines on this machine: the tokens of one alone, caps, queue, killed engines."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from serve_kit import SECONDS

from icgpt.checkpoint import open_checkpoint
from icgpt.engine import Engine
from icgpt.errors import UsageError
from icgpt.serve.desk import Desk
from icgpt.serve.errors import BusyError, PromptTooLongError
from icgpt.serve.figures import Figures
from icgpt.serve.local import LocalBackend
from icgpt.serve.settings import Settings
from icgpt.texts import load_tokenizer

PROMPTS = ["ROMEO:", "JULIET:", "To be", "A", "My lord", "What", "O", "He is", "All", "I"]


@asynccontextmanager
async def a_desk(instances: int = 1, **settings: Any) -> AsyncIterator[Desk]:
    backend = LocalBackend(open_checkpoint("shakespeare-char"), "int8", instances)
    await backend.start()
    try:
        async with asyncio.timeout(SECONDS):
            yield Desk(backend, Settings(**settings), Figures())
    finally:
        await backend.close()


def alone(prompts: list[str], **options: Any) -> list[tuple[list[int], str | None]]:
    """What the engine gives for each when nobody else asks; the seed is the prompt's place."""
    checkpoint = open_checkpoint("shakespeare-char")
    tokenizer = load_tokenizer(checkpoint)
    found = []
    with Engine.load(checkpoint, "int8") as engine:
        for seed, prompt in enumerate(prompts):
            engine.submit(tokenizer.encode(prompt).ids, seed=seed, **options)
            tokens: list[int] = []
            finish = None
            while engine.running:
                for event in engine.step():
                    tokens += event.token_ids
                    finish = event.finish
            found.append((tokens, finish))
    return found


def test_many_at_once_on_engines_that_are_killed() -> None:
    wanted = alone(PROMPTS, max_new_tokens=300)

    async def run() -> None:
        async with a_desk(instances=2, at_once=3) as desk:
            backend = desk.backend
            assert isinstance(backend, LocalBackend)

            async def kill() -> None:
                for _ in range(2):
                    await asyncio.sleep(0.1)
                    for worker in backend.workers()[:1]:
                        os.kill(worker, signal.SIGKILL)

            killing = asyncio.create_task(kill())
            asked = [
                desk.complete(prompt, {"max_new_tokens": 300, "seed": i})
                for i, prompt in enumerate(PROMPTS)
            ]
            done = await asyncio.gather(*asked)
            await killing
            assert [(one.token_ids, one.finish) for one in done] == wanted
            assert backend.restarts > 0
            assert (desk.running, desk.waiting) == (0, 0)

    asyncio.run(run())


def test_several_answers_survive_a_killed_engine() -> None:
    options = {"max_new_tokens": 200, "num_return_sequences": 3, "seed": 4}
    beams = {"max_new_tokens": 20, "num_beams": 3, "num_return_sequences": 2, "temperature": 0.0}

    async def run() -> None:
        async with a_desk() as desk:
            backend = desk.backend
            assert isinstance(backend, LocalBackend)
            wanted = await desk.complete("ROMEO:", options)
            assert len({one.text for one in (wanted, *wanted.others)}) == 3
            again = asyncio.create_task(desk.complete("ROMEO:", options))
            await asyncio.sleep(0.05)
            os.kill(backend.workers()[0], signal.SIGKILL)
            assert await again == wanted
            found = await desk.complete("ROMEO:", beams)
            (other,) = found.others
            assert found.score is not None
            assert other.score is not None
            assert found.score >= other.score

    asyncio.run(run())


def test_leaving_frees_the_place() -> None:
    async def run() -> None:
        async with a_desk(at_once=1, queue=0) as desk:
            async with desk.begin("ROMEO:", {"max_new_tokens": 1000}) as answer:
                async for _ in answer:
                    with pytest.raises(BusyError) as refused:
                        await desk.complete("ROMEO:", {})
                    assert refused.value.retry_after
                    break
            done = await desk.complete("ROMEO:", {"max_new_tokens": 3})
            assert len(done.token_ids) == 3

    asyncio.run(run())


def test_caps() -> None:
    async def run() -> None:
        async with a_desk(max_tokens=5, max_context=20) as desk:
            assert len((await desk.complete("ROMEO:", {})).token_ids) == 5
            stops = {"context": "stop", "max_new_tokens": 300}
            done = await desk.complete("ROMEO: to be or ", stops)
            assert (len(done.token_ids), done.finish) == (4, "length")
            with pytest.raises(PromptTooLongError):
                await desk.complete("ROMEO: to be or not to be", {})
            with pytest.raises(UsageError, match="temperature"):
                await desk.complete("ROMEO:", {"temperature": -1.0})
            with pytest.raises(UsageError, match="ü"):
                await desk.complete("ü", {})

    asyncio.run(run())


def test_text_ends_before_a_stop_string() -> None:
    async def run() -> None:
        async with a_desk() as desk:
            whole = await desk.complete("ROMEO:", {"max_new_tokens": 200, "seed": 1})
            stop = whole.text[50:55]
            pieces = []
            options = {"max_new_tokens": 200, "seed": 1, "stop": [stop]}
            async with desk.begin("ROMEO:", options) as answer:
                async for piece in answer:
                    pieces.append(piece.text)
            assert "".join(pieces) == whole.text[: whole.text.index(stop)]
            assert piece.finish == "stop"

    asyncio.run(run())

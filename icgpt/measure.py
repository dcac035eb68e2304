"""How fast a deployed model is: seconds and instructions, from generations made for the purpose.

Prompts are random token ids, so that nothing kept from earlier ones serves them; answers are greedy
and go on to their full length. Figures of several rounds are their medians.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from icgpt.cost import generation_cycles
from icgpt.errors import CanisterError, UsageError

if TYPE_CHECKING:
    from icgpt.client import ModelCanister
    from icgpt.fleet import Fleet
    from icgpt.results import Architecture

OPTIONS: Final = {"temperature": 0.0, "template": False}


@dataclass(frozen=True)
class Speed:
    """What was measured."""

    prompt_tokens: int
    tokens: int
    jobs: int
    first_seconds: float
    """From the request until the first token is here."""
    seconds_per_token: float
    tokens_per_second: float
    """Of all jobs together."""
    instructions_per_token: int
    instructions_per_prompt_token: int
    query_seconds: float
    """Of a query that does next to nothing."""
    update_seconds: float
    """Of a call that does next to nothing."""


@dataclass(frozen=True)
class Run:
    """One generation."""

    seconds: float
    first_seconds: float
    instructions: int


def measure(
    model: ModelCanister | Fleet,
    tokens: int = 64,
    prompt_tokens: int = 16,
    jobs: int = 1,
    rounds: int = 3,
) -> Speed:
    """Measures a model.

    Args:
        model: the canister, or the fleet over which the answers are spread.
        tokens: length of each answer, at least 2.
        prompt_tokens: length of each prompt.
        jobs: how many answers are written at once.
        rounds: how often all of it is done.
    """
    shape = model.info().architecture
    if shape is None:
        raise UsageError("the canister has no model yet", "Put one in with: icgpt upload")
    if prompt_tokens + tokens > shape.n_ctx:
        raise UsageError(
            f"{prompt_tokens} + {tokens} tokens don't fit into the context of {shape.n_ctx:,}",
            "Measure a shorter prompt, or fewer tokens.",
        )
    draw = random.Random()

    def prompt() -> list[int]:
        return [draw.randrange(shape.vocab_size) for _ in range(prompt_tokens)]

    begun = [_run(model, prompt(), 1) for _ in range(rounds)]
    whole, walls = [], []
    with ThreadPoolExecutor(jobs) as pool:
        for _ in range(rounds):
            prompts = [prompt() for _ in range(jobs)]
            began = time.monotonic()
            whole += list(pool.map(lambda ids: _run(model, ids, tokens), prompts))
            walls.append(time.monotonic() - began)
    first = round(median(one.instructions for one in begun))
    all_ = round(median(one.instructions for one in whole))
    writing = median(one.seconds for one in whole) - median(one.seconds for one in begun)
    return Speed(
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        jobs=jobs,
        first_seconds=median(one.first_seconds for one in begun),
        seconds_per_token=max(0.0, writing) / (tokens - 1),
        tokens_per_second=tokens * jobs / median(walls),
        instructions_per_token=max(0, all_ - first) // (tokens - 1),
        instructions_per_prompt_token=first // prompt_tokens,
        query_seconds=_seconds(model.info, rounds),
        update_seconds=_seconds(lambda: model.score([0], [0]), rounds),
    )


def expected_cycles(
    model: ModelCanister | Fleet, tokens: int, prompt_tokens: int, jobs: int, rounds: int
) -> int:
    """What `measure` will cost the canister on mainnet, by queries, which cost nothing."""
    token, prompt_token = instructions(model, tokens, prompt_tokens)
    begun = generation_cycles(prompt_tokens * prompt_token, 4 * prompt_tokens)
    work = prompt_tokens * prompt_token + tokens * token
    return rounds * (begun + jobs * generation_cycles(work, 4 * prompt_tokens))


def _run(model: ModelCanister | Fleet, ids: list[int], tokens: int) -> Run:
    began = time.monotonic()
    first = None
    stream = model.stream(ids, max_new_tokens=tokens, min_new_tokens=tokens, **OPTIONS)
    for piece in stream:
        if piece.token_ids and first is None:
            first = time.monotonic() - began
    seconds = time.monotonic() - began
    return Run(seconds, seconds if first is None else first, stream.completion.instructions)


def _seconds(call: Any, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = time.monotonic()
        call()
        times.append(time.monotonic() - began)
    return median(times)


def instructions(model: ModelCanister | Fleet, tokens: int, prompt_tokens: int) -> tuple[int, int]:
    """Instructions of a token and of a prompt's token, by queries, which cost nothing.

    What does not fit a query is measured with fewer tokens: of a large model a single one.
    """
    shape = model.info().architecture
    if shape is None:
        raise UsageError("the canister has no model yet", "Put one in with: icgpt upload")
    smaller = ((min(tokens, most), min(prompt_tokens, prompt)) for most, prompt in _SMALLER)
    for size in dict.fromkeys([(tokens, prompt_tokens), *smaller]):
        try:
            return _counted(model, shape, *size)
        except CanisterError as error:
            if _TOO_MUCH not in error.message:
                raise
    raise UsageError(
        "the model is too large to be measured by queries",
        "`icgpt cost --shape NAME` tells what a model of its size takes.",
    )


_SMALLER: Final = ((5, 4), (2, 1), (1, 1))
_TOO_MUCH: Final = "takes more than a query may do"


def _counted(
    model: ModelCanister | Fleet, shape: Architecture, tokens: int, prompt_tokens: int
) -> tuple[int, int]:
    draw = random.Random()
    least = max(1, min(prompt_tokens, shape.n_ctx - tokens))

    def count(length: int) -> int:
        ids = [draw.randrange(shape.vocab_size) for _ in range(least)]
        options = {"max_new_tokens": length, "min_new_tokens": length, "seed": 1, **OPTIONS}
        return model.complete_query(ids, **options).instructions

    first = count(1)
    if tokens == 1:
        return first, first // least
    return max(0, count(tokens) - first) // (tokens - 1), first // least

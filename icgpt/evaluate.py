"""How well a model knows a text: the perplexity of its tokens, computed on the canister.

The text is cut into windows that fit into the context. Each window begins with tokens that were
scored before, as context, and scores `stride` new ones; so each token but the first is scored once.
A small stride gives every token more to go by, and takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from icgpt.errors import UsageError

if TYPE_CHECKING:
    from icgpt.client import ModelCanister
    from icgpt.fleet import Fleet

PIECE_CHARACTERS: Final = 20_000
"""Text for one call of the tokenizer, which is a query and may not take long."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured."""

    tokens: int
    """Scored ones."""
    characters: int
    bytes: int
    nats: float
    """Sum over all tokens."""
    stride: int
    window: int

    @property
    def nats_per_token(self) -> float:
        """The mean loss."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """How many equally likely tokens the model hesitates between."""
        return math.exp(min(self.nats_per_token, 700.0))

    def per(self, unit: int) -> tuple[float, float]:
        """Nats and bits for each character, or each byte, of the scored text."""
        nats = self.nats / max(unit, 1)
        return nats, nats / math.log(2)


@dataclass(frozen=True)
class Window:
    """A span of the tokens: `context` of them to go by, the others scored."""

    start: int
    context: int
    end: int


def windows(count: int, n_ctx: int, stride: int) -> Iterator[Window]:
    """The windows over so many tokens.

    The last token of a window is never run, so it may be one longer than the context.
    """
    scored = 1  # the first token has nothing to go by
    while scored < count:
        end = min(scored + stride, count)
        start = max(0, end - n_ctx - 1)
        yield Window(start, scored - start, end)
        scored = end


def evaluate(
    model: ModelCanister | Fleet,
    text: str,
    stride: int | None = None,
    max_tokens: int | None = None,
    on_step: Callable[[int, int, float], None] = lambda done, total, nats: None,
    agree: Callable[[int, int], None] = lambda tokens, calls: None,
    at_once: int = 1,
) -> Evaluation:
    """Scores a text.

    Args:
        model: must have a tokenizer.
        text: the text.
        stride: new tokens in each window; half of the context when left out.
        max_tokens: no more of the text's tokens than so many.
        on_step: told how many tokens are scored, of how many, and their nats so far.
        agree: told how many tokens are to be computed, in how many calls; may raise.
        at_once: how many windows are scored at the same time; as many as a fleet has canisters.
    """
    shape = model.info().architecture
    if shape is None:
        raise UsageError("the canister has no model yet", "Put one in with: icgpt upload")
    ids = _tokens(model, text, max_tokens)
    if len(ids) < 2:
        raise UsageError(
            f"the text has {'one token' if ids else 'no tokens'}, and the first can't be scored",
            "Give a longer one.",
        )
    step = max(1, shape.n_ctx // 2) if stride is None else min(stride, shape.n_ctx)
    parts = list(windows(len(ids), shape.n_ctx, step))
    agree(sum(part.end - part.start - 1 for part in parts), len(parts))
    nats = 0.0

    def score(window: Window) -> list[float]:
        middle = window.start + window.context
        return model.score(ids[window.start : middle], ids[middle : window.end])

    for window, logprobs in zip(parts, _in_order(score, parts, at_once), strict=True):
        nats -= math.fsum(logprobs)
        on_step(window.end - 1, len(ids) - 1, nats)
    scored = text if max_tokens is None else model.decode(ids)
    first = model.decode(ids[:1])
    return Evaluation(
        tokens=len(ids) - 1,
        characters=len(scored) - len(first),
        bytes=len(scored.encode()) - len(first.encode()),
        nats=nats,
        stride=step,
        window=shape.n_ctx,
    )


def _in_order(
    score: Callable[[Window], list[float]], parts: list[Window], at_once: int
) -> Iterator[list[float]]:
    """What each window gives, one after the other, with some being computed ahead."""
    if at_once == 1:
        yield from map(score, parts)
        return
    pool = ThreadPoolExecutor(at_once, "score")
    try:
        yield from pool.map(score, parts)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _tokens(model: ModelCanister | Fleet, text: str, most: int | None) -> list[int]:
    ids: list[int] = []
    for piece in pieces(text):
        ids += model.tokenize(piece).token_ids
        if most is not None and len(ids) >= most:
            return ids[:most]
    return ids


def pieces(text: str) -> Iterator[str]:
    """The text in parts for the tokenizer.

    They end before a single space between letters, where byte-level BPE never joins what stands on
    both sides.
    """
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = start + PIECE_CHARACTERS
        while end > start + PIECE_CHARACTERS // 2 and not _between_words(text, end):
            end -= 1
        yield text[start:end]
        start = end
    yield text[start:]


def _between_words(text: str, at: int) -> bool:
    return text[at] == " " and text[at - 1].isalpha() and text[at + 1 : at + 2].isalpha()

"""Is a text spam? What a model says, as a probability.

A classifier has a layer over labels, which says it itself. Of a model that only writes it is read
from what it expects to stand behind a message: how likely each word is as the message's label,
token by token in the mean, so that no word loses by its length, and measured against how likely it
is behind no message at all (contextual calibration, https://arxiv.org/abs/2102.09690), so that no
word wins because it is common.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from icgpt.checkpoint.labels import Label
from icgpt.errors import UsageError
from icgpt.serve.desk import Desk
from icgpt.serve.prompts import PLAIN, Form

SPAM, NOT_SPAM = "spam", "not spam"
USUAL_FORM: Final = "Message: {text}\nLabel:"
WORDS: Final = (" spam", " ham")
_DENIED: Final = re.compile(r"\b(not|no|non)\b|\bham\b")


@dataclass(frozen=True)
class Verdict:
    """What a text was found to be."""

    spam: float
    """How probable it is that it is spam."""
    tokens: int
    """How many tokens of it were read."""

    @property
    def label(self) -> str:
        """The likelier label."""
        return SPAM if self.spam > 0.5 else NOT_SPAM

    @property
    def confidence(self) -> float:
        """The label's probability."""
        return max(self.spam, 1 - self.spam)


class Judge(Protocol):
    """Says whether a text is spam."""

    async def judge(self, text: str) -> Verdict:
        """What a text is found to be; of one that is too long its beginning counts."""


class Classifier:
    """A model with a layer over labels, opened as `icgpt.checkpoint.labels` has it.

    Args:
        desk: where it is asked.
        labels: what it can say.
    """

    def __init__(self, desk: Desk, labels: Sequence[Label]) -> None:
        self._desk = desk
        self._labels = labels
        self._spam = [_is_spam(one.name) for one in labels]
        if not any(self._spam) and len(labels) == 2:
            self._spam = [False, True]
        if not any(self._spam) or all(self._spam):
            names = ", ".join(one.name for one in labels[:8])
            raise UsageError(
                f"none of the classifier's labels means spam: {names}",
                'Name one of them "spam" in id2label of its config.json.',
            )

    async def judge(self, text: str) -> Verdict:
        """What a text is found to be."""
        desk = self._desk
        ids = await PLAIN.token_ids(desk, text, desk.max_context, beginning=True)
        found = await asyncio.gather(*(desk.score(ids, [n]) for n in range(len(self._labels))))
        shares = _shares([s[0] + one.added for s, one in zip(found, self._labels, strict=True)])
        spam = sum(share for share, said in zip(shares, self._spam, strict=True) if said)
        return Verdict(min(spam, 1.0), len(ids))


class Expectation:
    """A model that writes, asked for the words that it expects.

    Args:
        desk: where it is asked.
        form: what stands round a message.
    """

    def __init__(self, desk: Desk, form: Form) -> None:
        self._desk = desk
        self._form = form
        self._usual: tuple[str, list[float]] | None = None

    async def judge(self, text: str) -> Verdict:
        """What a text is found to be."""
        words = [await self._desk.token_ids(word) for word in WORDS]
        room = self._desk.max_context - max(map(len, words))
        fingerprint = self._desk.backend.facts.fingerprint
        if self._usual is None or self._usual[0] != fingerprint:
            nothing = await self._form.token_ids(self._desk, "", room, beginning=True)
            self._usual = fingerprint, await self._means(nothing, words)
        ids = await self._form.token_ids(self._desk, text, room, beginning=True)
        pairs = zip(await self._means(ids, words), self._usual[1], strict=True)
        return Verdict(_shares([found - usual for found, usual in pairs])[0], len(ids))

    async def _means(self, ids: list[int], words: list[list[int]]) -> list[float]:
        """For each word the mean log-probability of its tokens."""
        found = await asyncio.gather(*(self._desk.score(ids, word) for word in words))
        return [sum(one) / len(one) for one in found]


def _is_spam(name: str) -> bool:
    words = name.lower().replace("_", " ").replace("-", " ")
    return "spam" in words and not _DENIED.search(words)


def _shares(logs: list[float]) -> list[float]:
    """Logarithms of shares as shares of one."""
    most = max(logs)
    parts = [math.exp(one - most) for one in logs]
    return [part / sum(parts) for part in parts]

"""The order in which a run reads its text, and where it stands in it.

Every pass cuts the text at a new offset and shuffles the windows: each token comes once a pass
(but for the ends of the text), each time at another position. Shapes: B windows of T = n_ctx.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icgpt.train.presets import Settings
from icgpt.train.vocabulary import Ids


class Batches:
    """Endless batches of a text. Its state can be kept and put back."""

    def __init__(self, ids: Ids, s: Settings) -> None:
        self._ids = ids
        self._s = s
        self._rng = np.random.default_rng(s.seed)
        self._waiting: list[int] = []

    def next_starts(self) -> list[int]:
        """Where the windows of the next batch begin."""
        s, ids = self._s, self._ids
        while len(self._waiting) < s.batch:
            offset = int(self._rng.integers(0, min(s.n_ctx, len(ids) - s.n_ctx)))
            starts = np.arange(offset, len(ids) - s.n_ctx, s.n_ctx)
            self._waiting.extend(self._rng.permutation(starts).tolist())
        chosen, self._waiting = self._waiting[: s.batch], self._waiting[s.batch :]
        return chosen

    def rows(self, starts: list[int]) -> tuple[Tensor, Tensor]:
        """(inputs, targets), each [B, T]."""
        n_ctx = self._s.n_ctx
        rows = torch.from_numpy(np.stack([self._ids[i : i + n_ctx + 1] for i in starts]))
        return rows[:, :-1], rows[:, 1:]

    def state(self) -> str:
        """Where the run stands in its text. JSON: the generator's numbers have 128 bits."""
        return json.dumps({"rng": self._rng.bit_generator.state, "waiting": self._waiting})

    def restore(self, state: str) -> None:
        """Goes on from there."""
        kept: dict[str, Any] = json.loads(state)
        self._rng.bit_generator.state = kept["rng"]
        self._waiting = list(kept["waiting"])

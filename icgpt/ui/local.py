"""A model in this process: the canister's engine, and texts round it.

All who are being written for share the engine's passes. Whoever waits for news lets the engine take
a step, and puts what comes of it for the others beside.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from icgpt.checkpoint import Checkpoint
from icgpt.engine import Engine, Event
from icgpt.errors import IcgptError
from icgpt.texts import check_known, load_tokenizer
from icgpt.ui.writers import Progress

_CUT: Final = "\N{REPLACEMENT CHARACTER}"


class LocalWriter:
    """Writes with a checkpoint's weights.

    Args:
        checkpoint: the model; it must have a tokenizer.
        precision: how its weights are held; the model's own way when left out.
    """

    def __init__(self, checkpoint: Checkpoint, precision: str | None = None) -> None:
        self._tokenizer = load_tokenizer(checkpoint)
        self._engine = Engine.load(checkpoint, precision)
        self._lock = threading.Lock()
        self._news: dict[int, deque[Event]] = {}
        held = precision or checkpoint.config.precision or "f32"
        self.name = checkpoint.name
        self.about = (
            f"{checkpoint.parameters / 1e6:,.1f} million parameters in {held}, "
            f"context {checkpoint.config.n_ctx:,}, on this machine"
        )

    @property
    def running(self) -> int:
        """Texts that are being written."""
        return self._engine.running

    def write(self, prompt: str, /, **options: Any) -> Iterator[Progress]:
        """Goes on from a text; options as in docs/options.md."""
        ids = self._tokenizer.encode(prompt, add_special_tokens=False).ids
        check_known(prompt, self._decoded(ids))
        with self._lock:
            number = self._engine.submit(ids, **options).id
            self._news[number] = deque()
        tokens: list[int] = []
        done = Progress("", 0, None)
        try:
            while done.finish is None:
                event = self._next(number)
                if event is not None:
                    if event.finish == "failed":
                        raise IcgptError(event.failure or "the model could not go on")
                    tokens += event.token_ids
                    whole = self._decoded(tokens)
                    text = whole if event.finish else whole.rstrip(_CUT)
                    done = Progress(text, len(tokens), event.finish)
                yield done
        finally:
            with self._lock:
                del self._news[number]
                self._engine.cancel(number)

    def close(self) -> None:
        """Drop the model."""
        with self._lock:
            self._engine.close()

    def _next(self, number: int) -> Event | None:
        """News of one text; None when a step brought some for others only."""
        with self._lock:
            if not self._news[number]:
                for event in self._engine.step():
                    self._news[event.id].append(event)
            return self._news[number].popleft() if self._news[number] else None

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

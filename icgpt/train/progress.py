"""What a person sees on stderr while a model trains, and how Ctrl-C ends a run well.

On a terminal a bar with loss and time left; elsewhere (a log file) a plain line for
every evaluation. The first Ctrl-C or SIGTERM asks the run to save and end, the second kills.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from icgpt.train import log
from icgpt.train.presets import Settings

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Pace(ProgressColumn):
    """Tokens per second."""

    def __init__(self, tokens_a_step: int) -> None:
        super().__init__()
        self._tokens = tokens_a_step

    def render(self, task: Task) -> Text:
        """The pace of the last steps."""
        return Text(f"{(task.speed or 0) * self._tokens:,.0f} tokens/s")


class ProgressWatcher:
    """Shows a run on stderr; see `icgpt.train.loop.Watcher`."""

    def __init__(self, settings: Settings, unit: str, *, quiet: bool = False) -> None:
        self._settings = settings
        self._unit = unit
        self._stop = False
        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            _Pace(settings.tokens_a_step()),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=settings.max_iters, loss=0.0)

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def started(self, parameters: int, step: int) -> None:
        """Before the first step."""
        s = self._settings
        windows = s.batch * s.grad_accum
        self.say(
            f"{parameters:,} parameters; {s.max_iters:,} steps of {windows} x {s.n_ctx} "
            f"{self._unit}s" + (f"; going on after step {step:,}" if step else "")
        )
        self._bar.update(self._task, completed=step)

    def stepped(self, step: int, loss: float) -> None:
        """After each step."""
        self._bar.update(self._task, completed=step, loss=loss)

    def checked(self, entry: dict[str, Any]) -> None:
        """After each evaluation."""
        self.say(log.sentence(entry))

    def wants_stop(self) -> bool:
        """Whether a signal came."""
        return self._stop

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Show the bar and take signals while the block runs."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        try:
            with self._bar:
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stop = True
        signal.signal(number, signal.SIG_DFL)
        self.say("saving after this step; once more to end at once")

"""Uploads on stderr: a bar with bytes, speed and time left; plain lines without a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from icgpt.cli.common import at_terminal, bytes_text, say
from icgpt.upload import Step

_WORDS = {"convert": "Converting", "upload": "Sending", "store": "Storing", "setup": "Setting up"}


@contextmanager
def shown(names: Sequence[str] = ()) -> Iterator[Callable[[str, Step], None]]:
    """A function that shows steps while the context lasts.

    Args:
        names: the canisters, where it is to be told which of them a step is of.
    """
    if at_terminal(sys.stderr):
        with _bar(names) as show:
            yield show
    else:
        yield _lines(names)


def _lines(names: Sequence[str]) -> Callable[[str, Step], None]:
    told: set[tuple[str, str]] = set()

    def show(name: str, step: Step) -> None:
        if (name, step.name) not in told:
            told.add((name, step.name))
            size = f" {bytes_text(step.total - step.done)}" if step.name == "upload" else ""
            kept = f" ({bytes_text(step.resumed)} are there already)" if step.resumed else ""
            say(f"{f'{name}: ' if name in names else ''}{_WORDS[step.name]}{size}{kept}")

    return show


@contextmanager
def _bar(names: Sequence[str]) -> Iterator[Callable[[str, Step], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Amount(ProgressColumn):
        """How much, how fast and how long yet; of a set-up only how long it has taken."""

        def render(self, task: Task) -> Text:
            if task.fields["timed"]:
                return Text(f"{task.elapsed or 0:.0f} s")
            parts = [f"{bytes_text(task.completed)} / {bytes_text(task.total or 0)}"]
            if task.speed:
                parts.append(f"{bytes_text(task.speed)}/s")
            if task.time_remaining:
                parts.append(f"{task.time_remaining:.0f} s left")
            return Text(", ".join(parts))

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        Amount(table_column=Column(no_wrap=True)),
    )
    rows: dict[str, tuple[TaskID, str]] = {}
    progress = Progress(*columns, console=Console(stderr=True))
    width = max(map(len, names), default=0)

    def show(name: str, step: Step) -> None:
        if step.name == "store":
            return
        timed = step.name == "setup"
        # Of several canisters each has a row for all of its steps; of one, each step has its own.
        row = name if name in names else step.name
        words = f"{name:<{width}}  {_WORDS[step.name]}" if name in names else _WORDS[step.name]
        progress.start()  # not before there is something to show: until then one may be asked
        task, at = rows.get(row) or (progress.add_task("", timed=False), "")
        if at != step.name:
            rows[row] = task, step.name
            # What an earlier run has sent says nothing about this run's speed.
            progress.reset(
                task, total=step.total, completed=step.resumed, description=words, timed=timed
            )
        # A set-up that has not told how far it is gets a bar that merely moves.
        total = None if timed and not step.done else step.total
        progress.update(task, completed=step.done, total=total)

    try:
        yield show
    finally:
        progress.stop()

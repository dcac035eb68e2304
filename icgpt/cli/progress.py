"""Uploads on stderr: a bar with bytes, speed and time left; plain lines without a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from icgpt.cli.common import bytes_text, say
from icgpt.upload import Step

_WORDS = {"upload": "Sending", "store": "Storing", "setup": "Setting up"}


@contextmanager
def shown() -> Iterator[Callable[[Step], None]]:
    """A function that shows steps while the context lasts."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


def _lines() -> Callable[[Step], None]:
    told: set[str] = set()

    def show(step: Step) -> None:
        if step.name not in told:
            told.add(step.name)
            size = f" {bytes_text(step.total - step.done)}" if step.name == "upload" else ""
            kept = f" ({bytes_text(step.resumed)} are there already)" if step.resumed else ""
            say(f"{_WORDS[step.name]}{size}{kept}")

    return show


@contextmanager
def _bar() -> Iterator[Callable[[Step], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def show(step: Step) -> None:
            if step.name == "store":
                return
            if step.name not in tasks:
                tasks[step.name] = progress.add_task(_WORDS[step.name], total=step.total)
            progress.update(tasks[step.name], completed=step.done, total=step.total)

        yield show

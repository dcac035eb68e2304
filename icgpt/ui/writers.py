"""What can write behind a page.

A writer goes on from a text and gives how far it has come, again and again, also where there is
nothing new yet. Closing the iterator ends the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Progress:
    """What has been written so far."""

    text: str
    """All of it that is whole: a character that takes several tokens comes with the last."""
    tokens: int
    finish: str | None
    """As in `icgpt.Completion`; None while it is being written."""


class Writer(Protocol):
    """A model that goes on from texts. Threads may share it."""

    name: str
    """How people call it."""
    about: str
    """A line that says what it is."""

    def write(self, prompt: str, /, **options: Any) -> Iterator[Progress]:
        """Goes on from a text; options as in docs/options.md."""

    def close(self) -> None:
        """Gives back what it holds."""

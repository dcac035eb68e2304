"""What can write behind a page: the interface, and what all of its kinds check.

A writer goes on from a text and gives how far it has come, again and again, also where there is
nothing new yet. Closing the iterator ends the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from icgpt.errors import UsageError

MAX_SHOWN = 12


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


def check_known(text: str, decoded: str) -> None:
    """UsageError for characters that the model's vocabulary lacks: they would just be left out.

    Args:
        text: what is asked.
        decoded: the text of its token ids.
    """
    if text == decoded:
        return
    unknown = sorted(set(text) - set(decoded))
    if unknown:
        shown = ", ".join(_shown(one) for one in unknown[:MAX_SHOWN])
        more = f" and {len(unknown) - MAX_SHOWN} more" if len(unknown) > MAX_SHOWN else ""
        raise UsageError(
            f"the model does not know these characters: {shown}{more}",
            "Leave them out, or write them in another way.",
        )


def _shown(character: str) -> str:
    return character if character.isprintable() and character != " " else repr(character)

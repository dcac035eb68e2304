"""Prompts that a service makes of its callers' texts: put into a form, and cut to the context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from icgpt.errors import UsageError
from icgpt.serve.desk import Desk

PLACE: Final = "{text}"


@dataclass(frozen=True)
class Form:
    """What stands before and behind a caller's text."""

    before: str
    behind: str

    @classmethod
    def read(cls, text: str) -> Form:
        """A form written out, with {text} where the text goes."""
        before, place, behind = text.partition(PLACE)
        if not place or PLACE in behind:
            raise UsageError(f"a prompt's form has {PLACE} once; this one is {text!r}")
        return cls(before, behind)

    async def token_ids(self, desk: Desk, text: str, room: int, beginning: bool) -> list[int]:
        """Its token ids with a text in it, which is cut where it does not fit.

        Args:
            desk: whose model is to read it.
            text: the caller's.
            room: how many tokens there may be.
            beginning: whether the text's beginning stays, rather than its end.
        """
        before, middle, behind = [
            await desk.token_ids(part) if part else [] for part in (self.before, text, self.behind)
        ]
        left = max(0, room - len(before) - len(behind))
        middle = middle[:left] if beginning else middle[len(middle) - min(left, len(middle)) :]
        return [*before, *middle, *behind]


PLAIN: Final = Form("", "")

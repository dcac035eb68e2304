"""From the messages of a conversation to the ids that the model goes on from.

A model with a template gets each question inside it, followed by its answer and what ends one. It
has no place for a system's words, so they stand before the next question. A plain model gets the
conversation as a play, whose next speaker is the assistant; what it says ends with its paragraph.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from icgpt.chat import END_OF_SPEECH
from icgpt.errors import UsageError
from icgpt.results import Template
from icgpt.serve.openai.asked import Turn

Tokenize = Callable[[str], Awaitable[list[int]]]

_SPEAKERS: Final = {"system": "System", "developer": "System", "user": "User"}
_ANSWERS: Final = "Assistant"


async def ids_of(
    turns: Sequence[Turn], template: Template | None, tokenize: Tokenize
) -> tuple[list[int], list[str]]:
    """The ids of a conversation up to where the next answer begins, and texts that end it."""
    if turns[-1].role == "assistant":
        raise UsageError("the last message is the assistant's own", "End with the user's.")
    if template is None:
        return await tokenize(_play(turns)), [END_OF_SPEECH]
    ids: list[int] = []
    begun = ""
    for turn in turns:
        if turn.role == "assistant":
            ids += [*await tokenize(turn.said()), *template.stop[:1]]
        elif turn.role == "user":
            ids += [*template.prefix, *await tokenize(begun + turn.said()), *template.suffix]
            begun = ""
        else:
            begun += turn.said() + END_OF_SPEECH
    if begun:
        ids += [*template.prefix, *await tokenize(begun.rstrip()), *template.suffix]
    return ids, []


def _play(turns: Sequence[Turn]) -> str:
    said = (f"{_SPEAKERS.get(one.role, _ANSWERS)}:\n{one.said().strip()}" for one in turns)
    return END_OF_SPEECH.join([*said, f"{_ANSWERS}:\n"])

"""Texts on this side of the engine: a model's tokenizer, and what its vocabulary lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from icgpt.checkpoint import Checkpoint
from icgpt.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_SHOWN: Final = 12


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """A checkpoint's tokenizer; CheckpointError where it has none."""
    from tokenizers import Tokenizer

    path = checkpoint.tokenizer().path
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more exact
        raise CheckpointError(
            f"{path} can't be read: {error}", "Use the tokenizer.json that belongs to the model."
        ) from error


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

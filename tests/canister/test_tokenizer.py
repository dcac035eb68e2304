"""The canister's tokenizer gives the same ids as the Python library, and the same text back."""

from __future__ import annotations

import random

import pytest
from instruct import instruct_tokenizer
from model_kit import MakeCanister
from tokenizers import Tokenizer

from icgpt.client import ModelCanister

PIECES = [
    "what is the capital of France?", " ", "  ", "\n", "\t", "\r\n", "don't", "I'll", "we've", "'s",
    "naïve café", "Größe", "日本語のテキスト", "한국어", "עברית",
    "العربية", "👩‍👩‍👧‍👦", "🙂", "e\u0301",
    "\u00a0", "\u200b", "3.14159", "1,000,000", "0x1F",
    "def f(x):\n    return x**2\n", "<|endoftext|>",
    "### Instruction:", "### Response:\n", "### Response:", "### End", "###", "http://a.b/c?d=e&f",
    "ALLCAPS", "snake_case_name", "...", "—", "“quoted”", "\x00", "\x7f", "ﬁ", "½", "a" * 50, "Ġ",
]  # fmt: skip


@pytest.fixture(scope="module")
def python() -> Tokenizer:
    return instruct_tokenizer()


@pytest.fixture(scope="module")
def canister(new_canister: MakeCanister, python: Tokenizer) -> ModelCanister:
    model = new_canister()
    model.append("tokenizer", python.to_str().encode())
    model.store("tokenizer")
    model.load("tokenizer")
    model.setup_tokenizer()
    return model


def test_the_known_prompt(canister: ModelCanister) -> None:
    encoding = canister.tokenize("what is the capital of France?")
    assert encoding.token_ids == [10919, 318, 262, 3139, 286, 4881, 30]
    assert encoding.tokens[1] == "Ġis"


def test_500_mixed_strings(canister: ModelCanister, python: Tokenizer) -> None:
    draw = random.Random(50260)
    texts = list(PIECES)
    while len(texts) < 500:
        texts.append("".join(draw.choices(PIECES, k=draw.randint(1, 8))))
        codes = [draw.choice([draw.randint(32, 126), draw.randint(160, 0x2FFF)]) for _ in range(20)]
        texts.append("".join(map(chr, codes)))
    texts = texts[:500]
    for text in texts:
        expected = python.encode(text)
        got = canister.tokenize(text)
        assert (got.token_ids, got.tokens) == (expected.ids, expected.tokens), repr(text)
        assert canister.decode(got.token_ids) == python.decode(expected.ids), repr(text)


def test_special_tokens(canister: ModelCanister) -> None:
    assert canister.tokenize("### Response:\n").token_ids == [50259]
    assert canister.decode([50258, 464, 50257]) == "The"


def test_unknown_ids_are_refused(canister: ModelCanister) -> None:
    from icgpt.errors import CanisterError

    for decode in (canister.decode_each, canister.decode):
        with pytest.raises(CanisterError, match="50260"):
            decode([464, 50260])

"""The text of an answer token by token: whole characters, and nothing of a stop string."""

from __future__ import annotations

import random

import pytest
from instruct import instruct_tokenizer
from tokenizers import Tokenizer

from icgpt.serve.text import CUT, Visible

TEXT = "Grüße aus 東京 🗼👩‍👩‍👧, naïve café — ok… \n\n“quoted”\tend"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return instruct_tokenizer()


@pytest.mark.parametrize("seed", range(20))
def test_pieces_make_up_the_whole(tokenizer: Tokenizer, seed: int) -> None:
    chance = random.Random(seed)
    ids = tokenizer.encode(TEXT).ids
    visible = Visible(tokenizer.decode)
    text, at = "", 0
    while at < len(ids):
        step = chance.randrange(1, 4)
        piece = visible.add(ids[at : at + step], at + step >= len(ids))
        assert CUT not in piece
        text, at = text + piece, at + step
    assert text == TEXT


@pytest.mark.parametrize(
    ("stop", "wanted"),
    [
        (["東京"], "Grüße aus "),
        (["quoted", "naïve"], TEXT[: TEXT.index("naïve")]),
        (["nothing of it"], TEXT),
        (["end."], TEXT),
        (["🗼👩"], TEXT[: TEXT.index("🗼")]),
        (["G"], ""),
    ],
)
def test_nothing_of_a_stop_string_is_shown(
    tokenizer: Tokenizer, stop: list[str], wanted: str
) -> None:
    ids = tokenizer.encode(TEXT).ids
    visible = Visible(tokenizer.decode, stop)
    text = ""
    for place, one in enumerate(ids):
        text += visible.add([one], place == len(ids) - 1)
        assert wanted.startswith(text)
        if any(string in tokenizer.decode(ids[: place + 1]) for string in stop):
            break
    assert text == wanted


def test_bytes_that_are_no_text_do_not_hold_the_rest_back(tokenizer: Tokenizer) -> None:
    (broken,) = [one for one in tokenizer.encode("🗼").ids if tokenizer.decode([one]) == CUT][:1]
    visible = Visible(tokenizer.decode)
    text = "".join(visible.add([broken], False) for _ in range(40))
    text += visible.add(tokenizer.encode(" and on").ids, True)
    assert text.startswith(CUT)
    assert text.endswith(" and on")

"""How a text is cut, for the tokenizer and into windows."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icgpt.evaluate import PIECE_CHARACTERS, pieces, windows


@given(st.integers(0, 200), st.integers(1, 40), st.integers(1, 40))
def test_windows_score_every_token_but_the_first_once(count: int, n_ctx: int, stride: int) -> None:
    stride = min(stride, n_ctx)
    scored: list[int] = []
    for window in windows(count, n_ctx, stride):
        assert window.start >= 0
        assert window.context >= 1
        assert window.end - window.start <= n_ctx + 1
        new = range(window.start + window.context, window.end)
        assert len(new) <= stride
        # As much context as there is room for.
        assert window.start == 0 or window.end - window.start == n_ctx + 1
        scored += new
    assert scored == list(range(1, count))


@pytest.mark.parametrize("text", ["", "x", "word " * 20_000, "x" * 50_000, "a  b\n\n c " * 9_999])
def test_pieces_make_up_the_text(text: str) -> None:
    parts = list(pieces(text))
    assert "".join(parts) == text
    assert all(len(part) <= PIECE_CHARACTERS for part in parts)


def test_pieces_end_between_words() -> None:
    parts = list(pieces("one two, three  four\n" * 5_000))
    assert len(parts) > 2
    for before, after in itertools.pairwise(parts):
        assert before[-1].isalpha()
        assert after[0] == " "
        assert after[1].isalpha()

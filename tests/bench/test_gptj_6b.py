"""The way in which GPT-J-6B's shape is measured, on a shape that takes no time."""

from __future__ import annotations

from gptj_6b import PROMPT, SHAPE, measure, parameters

SHAPE_OF_A_TEST = {
    **SHAPE,
    "n_layer": 3,
    "n_head": 4,
    "n_embd": 64,
    "rotary_dim": 8,
    "vocab_size": 300,
}


def test_the_shape_is_that_of_gpt_j_6b() -> None:
    assert parameters(SHAPE) == 6_050_882_784


def test_weights_put_into_stable_memory_answer() -> None:
    figures = measure(SHAPE_OF_A_TEST)
    assert figures["packed_bytes"] > 190_000
    for held in (figures["default"], figures["most_in_heap"]):
        assert all(spent["instructions"] > 0 for spent in held.values())
        prompt, token = (
            held[key]["instructions"] for key in (f"prompt_of_{PROMPT}", "first_token")
        )
        # A row of a block costs less than a row alone, and more than nothing.
        assert token < prompt < PROMPT * token

"""What choosing a token costs of GPT-2's vocabulary: far below a pass through the model.

Counted in the canister, as the difference between an option and none (temperature 0), so that the
model's own work falls out. The bounds are those of docs/options.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import shapes
from lone_canister import LoneCanister
from model_kit import tiny_config, tiny_tensors, write_model

from icgpt.interface import OPTION_TYPES

VOCABULARY = 50_257
MILLION = 1_000_000


@pytest.fixture(scope="module", params=["sure", "unsure"])
def canister(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoneCanister]:
    """One whose model has few likely tokens, or thousands."""
    folder = tmp_path_factory.mktemp("large-vocabulary")
    config = tiny_config(vocab_size=VOCABULARY, n_positions=64)
    tensors = {name: np.zeros_like(one) for name, one in tiny_tensors(config).items()}
    scale = 2.5 if request.param == "sure" else 0.25
    tensors["wte.weight"] = scale * tiny_tensors(config)["wte.weight"]
    tensors["wpe.weight"] = tiny_tensors(config, 1)["wpe.weight"]
    tensors["ln_f.weight"] += 1
    canister = LoneCanister(folder / "state", shapes.WASM.read_bytes())
    canister.upload(write_model(folder / "model", config, tensors))
    canister.set_up("int8")
    yield canister
    canister.close()


def per_token(canister: LoneCanister, **options: Any) -> float:
    """Millions of instructions that a further token takes."""

    def complete(count: int) -> int:
        asked = {name: options.get(name) for name in OPTION_TYPES}
        asked |= {"max_new_tokens": count, "seed": 1}
        asked["temperature"] = options.get("temperature", 1.0)
        done, spent = canister.update("complete", {"token_ids": list(range(8))}, asked)
        assert len(done["token_ids"]) == count
        return spent.instructions

    return (complete(18) - complete(2)) / 16 / MILLION


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"temperature": 0.0, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3}, 0.25),
        ({"top_k": 50}, 0.25),
        ({"top_k": 50, "top_p": 0.9, "typical_p": 0.9}, 0.4),
        ({}, 1.2),
        ({"top_p": 0.9}, 4.2),
        ({"typical_p": 0.9}, 5.5),
        ({"temperature": 0.0, "logprobs": 20}, 1.3),
    ],
    ids=str,
)
def test_a_choice_is_cheap(canister: LoneCanister, options: dict[str, Any], most: float) -> None:
    greedy = per_token(canister, temperature=0.0)
    assert 0 < per_token(canister, **options) - greedy < most


def test_argmax_is_cheaper_still(canister: LoneCanister) -> None:
    # The whole of it: this model's own multiplications are 8 times the vocabulary.
    assert per_token(canister, temperature=0.0) < 2.0

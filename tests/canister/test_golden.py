"""The model inside the canister against Hugging Face transformers (tests/golden)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from model_kit import GOLDEN, ROOT, MakeCanister, with_model

from icgpt.checkpoint import open_checkpoint
from icgpt.client import ModelCanister
from icgpt.upload import upload

MODELS = sorted(
    folder.name
    for folder in GOLDEN.iterdir()
    if (folder / "model.safetensors").is_file() and (folder / "expected.json").is_file()
)


def test_there_are_at_least_five_models() -> None:
    assert len(MODELS) >= 5


@pytest.mark.parametrize("name", MODELS)
def test_small_models(name: str, new_canister: MakeCanister) -> None:
    folder = GOLDEN / name
    expected = json.loads((folder / "expected.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    n_ctx = config.get("n_positions") or config["n_ctx"]
    model = with_model(new_canister(), folder)

    prompt = expected["prompt"]
    for position in range(len(prompt)):
        logits = model.logits(prompt[: position + 1])
        np.testing.assert_allclose(logits, expected["logits"][position], atol=1e-3)

    # To the edge of the context: the last token is chosen when it is full.
    done = model.complete(prompt, max_new_tokens=500, temperature=0, context="stop")
    assert done.token_ids == expected["greedy"]
    assert (done.finish, len(prompt) + len(done.token_ids)) == ("context", n_ctx + 1)

    slid = model.complete(
        prompt, max_new_tokens=len(expected["slide"]), temperature=0, context="slide"
    )
    assert slid.token_ids == expected["slide"]


def fnv(logits: list[list[float]]) -> str:
    """FNV-1a over the bits of float32 numbers, as the engine's own test computes it."""
    value = 0xCBF29CE484222325
    for byte in np.asarray(logits, dtype="<f4").tobytes():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


@pytest.mark.parametrize("name", ["gelu", "gptj-odd-heads", "odd-heads", "two-blocks"])
def test_webassembly_gives_the_bits_of_the_native_engine(
    name: str, new_canister: MakeCanister
) -> None:
    """The engine's tests hold the native build to the same file. Here prompts run in blocks."""
    prompt = json.loads((GOLDEN / name / "expected.json").read_text())["prompt"]
    bits = json.loads((GOLDEN / "bits.json").read_text())
    for precision in ("f32", "int8", "int16"):
        model = new_canister()
        upload(model, open_checkpoint(str(GOLDEN / name)), precision=precision, seed_flow=True)
        assert model.info().precision == precision
        logits = [model.logits(prompt[: length + 1]) for length in range(len(prompt))]
        assert fnv(logits) == bits[precision][name], precision


def test_the_model_in_the_box(shakespeare: ModelCanister) -> None:
    """Logits, greedy text and text past the context of the model as torch trained it."""
    expected = json.loads((ROOT / "tests" / "train" / "golden.json").read_text())
    ids = shakespeare.tokenize(expected["prompt"]).token_ids
    assert ids == expected["prompt_ids"]
    sequence = ids + expected["greedy_ids"]
    for position, logits in expected["logits"].items():
        got = shakespeare.logits(sequence[: int(position) + 1])
        np.testing.assert_allclose(got, logits, atol=1e-3)
    done = shakespeare.complete(expected["prompt"], max_new_tokens=64, temperature=0)
    assert (done.token_ids, done.text) == (expected["greedy_ids"], expected["greedy_text"])
    slid = shakespeare.complete(expected["prompt"], max_new_tokens=320, temperature=0)
    assert (slid.token_ids, slid.text) == (expected["slide_ids"], expected["slide_text"])


def test_gpt2_124m_shape(tmp_path: Path, new_canister: MakeCanister) -> None:
    """498 MB of f32 through the client into the canister; logits and greedy ids of transformers."""
    import sys

    sys.path.insert(0, str(GOLDEN))
    import recipe

    expected = json.loads((GOLDEN / "gpt2-124m.json").read_text())
    recipe.write(tmp_path / "gpt2")
    model = with_model(new_canister(), tmp_path / "gpt2")
    info = model.info()
    assert info.architecture is not None
    assert info.architecture.parameters == 124_439_808

    prompt = expected["prompt"]
    worst = 0.0
    for one in expected["positions"]:
        logits = np.array(model.logits(prompt[: one["position"] + 1]))
        worst = max(worst, np.abs(logits[expected["indices"]] - one["logits"]).max())
        assert logits.argmax() == one["argmax"]
    assert worst < 1e-3
    done = model.complete(prompt, max_new_tokens=len(expected["greedy"]), temperature=0)
    assert done.token_ids == expected["greedy"]

    # More than one message's 40 billion instructions: the work goes on in the next one.
    long = model.complete(prompt * 10, max_new_tokens=100, temperature=0)
    assert len(long.token_ids) == 100
    assert long.instructions > 40_000_000_000

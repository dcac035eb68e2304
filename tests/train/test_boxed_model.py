"""The model in the box: it is small, whole, reads English, and answers as torch does."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_reference import Reference
from tokenizers import Tokenizer

import icgpt

FOLDER = Path(icgpt.__file__).parent / "models" / "shakespeare-char"
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_bytes())
ALPHABET = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# From The Taming of the Shrew, in the validation part of the text: the model never saw it.
UNSEEN = """\
PETRUCHIO:
Thus have I politicly begun my reign,
And 'tis my hope to end successfully.
My falcon now is sharp and passing empty;
And till she stoop she must not be full-gorged,
For then she never looks upon her lure.
"""


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(FOLDER)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def _header() -> dict[str, Any]:
    raw = (FOLDER / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header: dict[str, Any] = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    ends = [tensor["data_offsets"][1] for tensor in header.values()]
    assert max(ends) == len(raw) - 8 - length
    return header


def test_it_fits_in_eight_megabytes() -> None:
    names = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(names) == {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert sum(names.values()) <= 8_000_000


def test_config() -> None:
    config = json.loads((FOLDER / "config.json").read_bytes())
    assert config["model_type"] == "gpt2"
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert config["vocab_size"] == 65
    assert config["n_ctx"] == config["n_positions"]
    assert config["activation_function"] == "gelu_new"
    assert config["layer_norm_epsilon"] == 1e-5
    assert config["bos_token_id"] is None
    assert config["eos_token_id"] is None
    assert config["tie_word_embeddings"] is True
    assert config["icgpt"] == {"context": "slide"}


def test_tensors() -> None:
    config = json.loads((FOLDER / "config.json").read_bytes())
    c, inner = config["n_embd"], config["n_inner"]
    expected = {"wte.weight": [65, c], "wpe.weight": [config["n_ctx"], c]}
    expected |= {"ln_f.weight": [c], "ln_f.bias": [c]}
    for layer in range(config["n_layer"]):
        for name in ("ln_1", "ln_2"):
            expected |= {f"h.{layer}.{name}.{part}": [c] for part in ("weight", "bias")}
        for name, n_in, n_out in (
            ("attn.c_attn", c, 3 * c),
            ("attn.c_proj", c, c),
            ("mlp.c_fc", c, inner),
            ("mlp.c_proj", inner, c),
        ):
            expected[f"h.{layer}.{name}.weight"] = [n_in, n_out]
            expected[f"h.{layer}.{name}.bias"] = [n_out]
    header = _header()
    assert {name: tensor["shape"] for name, tensor in header.items()} == {
        f"transformer.{name}": shape for name, shape in expected.items()
    }
    assert {tensor["dtype"] for tensor in header.values()} == {"F16"}


def test_weights_are_finite(reference: Reference) -> None:
    assert all(np.isfinite(weight).all() for weight in reference.weights.values())


def test_tokenizer_round_trip(tokenizer: Tokenizer) -> None:
    assert [tokenizer.id_to_token(i) for i in range(65)] == list(ALPHABET)
    assert tokenizer.get_vocab_size() == 65
    for text in (ALPHABET, UNSEEN, " ", "\n", "  \n\n  a", "", "ROMEO:\n"):
        ids = tokenizer.encode(text).ids
        assert ids == [ALPHABET.index(character) for character in text]
        assert tokenizer.decode(ids) == text


def test_it_reads_what_it_never_saw(reference: Reference, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(UNSEEN).ids
    assert reference.loss(ids) < 1.45
    shuffled = list(np.random.default_rng(0).permutation(ids))
    assert reference.loss([int(i) for i in shuffled]) > math.log(65)


def test_logits_are_those_of_torch(reference: Reference) -> None:
    ids = GOLDEN["prompt_ids"] + GOLDEN["greedy_ids"]
    logits = reference.logits(ids)
    assert len(GOLDEN["logits"]) == 3
    for position, expected in GOLDEN["logits"].items():
        np.testing.assert_allclose(logits[int(position)], expected, atol=1e-4)
    # Every greedy id is the likeliest after all before it.
    start = len(GOLDEN["prompt_ids"]) - 1
    assert logits[start:-1].argmax(axis=1).tolist() == GOLDEN["greedy_ids"]
    assert len(GOLDEN["greedy_ids"]) == 64


def test_greedy_text_slides_as_that_of_torch(reference: Reference) -> None:
    """Full at n_ctx: the last three quarters, the newest id among them, start over."""
    n_ctx = reference.config["n_ctx"]
    ids = GOLDEN["prompt_ids"] + GOLDEN["slide_ids"]
    begin, known, slides = 0, len(GOLDEN["prompt_ids"]), 0
    while known < len(ids):
        likeliest = reference.logits(ids[begin : min(begin + n_ctx, len(ids) - 1)]).argmax(axis=1)
        chosen = [int(i) for i in likeliest[known - 1 - begin :]]
        assert chosen == ids[known : known + len(chosen)]
        known += len(chosen)
        begin, slides = known - (n_ctx - n_ctx // 4), slides + 1
    assert slides >= 3


def test_golden_text_is_that_of_the_tokenizer(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(GOLDEN["prompt"]).ids == GOLDEN["prompt_ids"]
    assert tokenizer.decode(GOLDEN["greedy_ids"]) == GOLDEN["greedy_text"]


def test_the_card_says_how_it_was_made() -> None:
    card = (FOLDER / "README.md").read_text()
    assert "icgpt train shakespeare-char" in card
    assert "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed" in card
    assert "1,003,854" in card
    assert "111,540" in card
    assert "| validation loss, nats per character | 1.4239 |" in card

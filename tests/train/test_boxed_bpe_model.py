"""The larger model in the box: small in eight bits, whole, and it reads what it never saw."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import numpy as np
import pytest
from gpt2_reference import Reference
from model_kit import GOLDEN, ROOT
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from icgpt.checkpoint import Checkpoint, open_checkpoint
from icgpt.engine import Engine

FOLDER = ROOT / "icgpt" / "models" / "shakespeare-bpe"
# A scene of Hamlet, which belongs to the plays that validate.
UNSEEN = (GOLDEN / "held-out.txt").read_text()[:2000]


@pytest.fixture(scope="module")
def model() -> Iterator[Checkpoint]:
    found = open_checkpoint("shakespeare-bpe")
    yield found
    found.close()


def test_it_fits_in_twelve_megabytes() -> None:
    names = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(names) == {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert sum(names.values()) <= 12_000_000


def test_its_sizes(model: Checkpoint) -> None:
    config = json.loads((FOLDER / "config.json").read_bytes())
    assert config["vocab_size"] == 4096
    assert config["icgpt"] == {"context": "slide", "precision": "int8"}
    assert model.parameters == 10_024_000
    kinds = {str(one.dtype) for one in load_file(FOLDER / "model.safetensors").values()}
    assert kinds == {"int8", "float16", "float32"}


def test_every_text_has_tokens(model: Checkpoint) -> None:
    tokenizer = Tokenizer.from_file(str(model.tokenizer().path))
    for text in (UNSEEN, " ", "\n\n", "", "naïve 🜁 \t\x00"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    # Tokens of its own language: more letters to each than of GPT-2's 50,257.
    assert len(UNSEEN) / len(tokenizer.encode(UNSEEN).ids) > 3


def test_it_reads_what_it_never_saw(model: Checkpoint) -> None:
    reference = Reference(model.files["safetensors"].path.parent)
    ids = Tokenizer.from_file(str(model.tokenizer().path)).encode(UNSEEN).ids[:256]
    assert reference.loss(ids) < 4.2
    shuffled = [int(i) for i in np.random.default_rng(0).permutation(ids)]
    assert reference.loss(shuffled) > math.log(4096) - 2


def test_the_engine_writes_what_the_formulas_do(model: Checkpoint) -> None:
    """Greedy, by the reference's likeliest tokens; rounded activations may turn a near tie."""
    reference = Reference(model.files["safetensors"].path.parent)
    with Engine.load(model) as engine:
        ids = list(range(300, 340))
        engine.submit(ids, max_new_tokens=40, temperature=0.0)
        written: list[int] = []
        while engine.running:
            written += [token for event in engine.step() for token in event.token_ids]
    logits = reference.logits(ids + written)[len(ids) - 1 : -1]
    chosen = logits[np.arange(len(written)), written]
    assert len(written) == 40
    assert (logits.max(axis=1) - chosen).max() < 0.05


def test_the_card_says_how_it_was_made() -> None:
    card = (FOLDER / "README.md").read_text()
    assert "icgpt train shakespeare-bpe\nicgpt convert ./shakespeare-bpe --precision int8" in card
    assert "32511e5ecf6aff5f14f256f14234eeea4f04a31d3804dae0ce03922d10f16e13" in card
    assert "| test loss, nats per token | 4.0733 |" in card

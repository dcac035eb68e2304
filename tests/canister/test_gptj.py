"""GPT-J in the canister: every precision, every way to ask, and after an upgrade.

Its golden models are compared with transformers where GPT-2's are, in test_golden.py.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_kit import GOLDEN, ROOT, MakeCanister, tiny_tensors, upgrade, with_model, write_model

from icgpt.checkpoint import open_checkpoint
from icgpt.checkpoint.config import expected_shapes, parse_config
from icgpt.client import ModelCanister
from icgpt.errors import CanisterError
from icgpt.upload import upload

CONFIG: dict[str, Any] = {
    "model_type": "gptj",
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 32,
    "n_positions": 48,
    "vocab_size": 65,
    "rotary_dim": 8,
    "tie_word_embeddings": False,
}


def tensors() -> dict[str, np.ndarray]:
    """Random weights, names with transformers' prefix but for the head's."""
    config = parse_config(json.dumps(CONFIG).encode())
    random = np.random.default_rng(6)
    shapes = {f"transformer.{name}": shape for name, shape in expected_shapes(config).items()}
    shapes |= {"lm_head.weight": (65, 32), "lm_head.bias": (65,)}
    return {name: random.normal(0, 0.4, shape).astype("f4") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes characters."""
    folder = write_model(tmp_path_factory.mktemp("gptj") / "m", CONFIG, tensors())
    shutil.copy(ROOT / "icgpt" / "models" / "shakespeare-char" / "tokenizer.json", folder)
    return folder


@pytest.mark.parametrize("precision", ["f32", "int8", "int16"])
def test_every_way_to_ask(
    canister: ModelCanister, source: Path, precision: str, wasm: bytes, tmp_path: Path
) -> None:
    assert upload(canister, open_checkpoint(str(source)), precision=precision, seed_flow=True).changed
    info = canister.info()
    assert info.architecture is not None
    assert (info.architecture.family, info.precision) == ("gptj", precision)
    assert (info.architecture.tied, info.architecture.n_inner) == (False, 128)
    assert info.architecture.parameters == sum(one.size for one in tensors().values())

    ids = canister.tokenize("ROMEO:").token_ids
    done = canister.complete(ids, max_new_tokens=20, temperature=0)
    # Token by token: the logits of each prefix choose the same ids.
    for at, token in enumerate(done.token_ids):
        logits = np.array(canister.logits(ids + done.token_ids[:at]))
        assert int(logits.argmax()) == token
    scores = canister.score(ids, done.token_ids)
    last = canister.logits(ids + done.token_ids[:-1])
    total = math.log(sum(math.exp(one) for one in last))
    assert scores[-1] == pytest.approx(last[done.token_ids[-1]] - total, abs=1e-4)
    text = canister.decode(done.token_ids)
    assert canister.generate("ROMEO:", 20, 0) == text
    assert canister.infer(ids, 20, 0) == done.token_ids
    job = canister.stream("ROMEO:", max_new_tokens=60, temperature=0.8, seed=2, context="slide")
    pieces = "".join(piece.text or "" for piece in job)
    assert len(pieces) == 60

    (tmp_path / "project").mkdir()
    upgrade(canister, wasm, tmp_path / "project")
    assert canister.info() == info
    assert canister.complete(ids, max_new_tokens=20, temperature=0).token_ids == done.token_ids


def test_rounding_stays_close(new_canister: MakeCanister) -> None:
    folder = GOLDEN / "gptj-half"
    prompt = json.loads((folder / "expected.json").read_text())["prompt"]
    model = with_model(new_canister(), folder)
    exact = np.array(model.logits(prompt))
    for precision, bound in (("int8", 0.05), ("int16", 0.002)):
        upload(model, open_checkpoint(str(folder)), precision=precision, seed_flow=True)
        rounded = np.array(model.logits(prompt))
        assert 0 < np.abs(rounded - exact).max() < bound * np.abs(exact).max()


def test_files_that_do_not_belong_together_change_nothing(
    canister: ModelCanister, source: Path, tmp_path: Path
) -> None:
    """The canister checks by itself; what the client refuses never arrives."""
    with_model(canister, source)
    before = canister.complete([1, 2], max_new_tokens=8, temperature=0).token_ids
    gpt2 = write_model(
        tmp_path / "gpt2", CONFIG, tiny_tensors({**CONFIG, "model_type": "gpt2", "n_layer": 2})
    )
    for config, weights, words in (
        (CONFIG, gpt2 / "model.safetensors", "q_proj"),
        ({**CONFIG, "rotary_dim": 18}, source / "model.safetensors", "rotary_dim is 18"),
    ):
        for kind, data in (
            ("config", json.dumps(config).encode()),
            ("safetensors", weights.read_bytes()),
        ):
            canister.clear(kind)
            canister.append(kind, data)
        canister.store("safetensors")
        with pytest.raises(CanisterError, match=words):
            canister.setup_model()
        again = canister.complete([1, 2], max_new_tokens=8, temperature=0).token_ids
        assert again == before

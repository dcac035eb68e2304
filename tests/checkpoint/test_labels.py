"""Classifiers: opened with the labels where the tokens were, they say what transformers says.

`tests/golden/classifier` and `classifier-gptj` are by `make_classifier.py`.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from model_kit import GOLDEN, tiny_config, tiny_tensors
from safetensors.numpy import load_file, save_file

from icgpt.checkpoint import Checkpoint, open_checkpoint
from icgpt.checkpoint.labels import NoLabelsError, labels_of
from icgpt.engine import Engine
from icgpt.errors import CheckpointError


def said(checkpoint: Checkpoint, ids: list[int]) -> list[float]:
    """Log-probabilities of the labels."""
    labels = labels_of(checkpoint)
    with Engine.load(checkpoint) as engine:
        found = [engine.score(ids, [n])[0] + one.added for n, one in enumerate(labels)]
    total = math.log(sum(map(math.exp, found)))
    return [one - total for one in found]


@pytest.mark.parametrize("name", ["classifier", "classifier-gptj"])
def test_a_classifier_of_transformers(name: str) -> None:
    expected = json.loads((GOLDEN / name / "labels.json").read_text())
    wanted = np.array(expected["logits"])
    wanted -= np.log(np.exp(wanted).sum())
    for source in (GOLDEN / name, GOLDEN / name / "model.pth"):
        checkpoint = open_checkpoint(str(source), labels=True)
        np.testing.assert_allclose(said(checkpoint, expected["ids"]), wanted, atol=1e-4)
    names = ["ham", "spam"] if len(wanted) == 2 else [f"LABEL_{n}" for n in range(3)]
    assert [one.name for one in labels_of(checkpoint)] == names


def test_a_bias_is_added(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "classifier", tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    tensors = load_file(path)
    head = tensors.pop("score.weight")
    added = np.array([1.5, -2.25], "f4")
    save_file({**tensors, "classifier.weight": head, "classifier.bias": added}, path)
    checkpoint = open_checkpoint(str(tmp_path / "m"), labels=True)
    assert [one.added for one in labels_of(checkpoint)] == [1.5, -2.25]
    save_file({**tensors, "score.weight": head, "score.bias": added[:1]}, path)
    with pytest.raises(CheckpointError, match="does not fit the labels"):
        open_checkpoint(str(tmp_path / "m"), labels=True)
    save_file({**tensors, "score.weight": head, "score.bias": added * np.inf}, path)
    with pytest.raises(CheckpointError, match="not finite"):
        open_checkpoint(str(tmp_path / "m"), labels=True)


def test_a_layer_over_tokens_that_was_replaced(tmp_path: Path) -> None:
    """As in fine-tuning from scratch: lm_head with a row for each label."""
    config = tiny_config()
    head = np.ones((2, config["n_embd"]), "f4")
    save_file({**tiny_tensors(config), "lm_head.weight": head}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(str(tmp_path), labels=True)
    assert [one.name for one in labels_of(checkpoint)] == ["LABEL_0", "LABEL_1"]
    assert said(checkpoint, [1, 2]) == pytest.approx([math.log(0.5)] * 2)


def test_models_that_write_are_no_classifiers(tiny: Path) -> None:
    for source in (str(tiny), "shakespeare-char", str(GOLDEN / "untied")):
        with pytest.raises(NoLabelsError):
            open_checkpoint(source, labels=True)


def test_a_classifier_can_write_with_its_embedding() -> None:
    checkpoint = open_checkpoint(str(GOLDEN / "classifier"))
    assert checkpoint.config.tied

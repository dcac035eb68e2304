"""Training a model further: its sizes, characters and weights are taken over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from gpt2_reference import Reference
from safetensors.numpy import load_file, save_file

from icgpt.checkpoint import open_checkpoint
from icgpt.cli.train import train
from icgpt.errors import CheckpointError, UsageError
from icgpt.train.errors import VocabularyError
from icgpt.train.presets import PRESETS
from icgpt.train.starting import open_start
from icgpt.train.vocabulary import Characters, learnt, of_model

TEXT = "".join(f"{n} sheep and {n + 1} sheep are {2 * n + 1} sheep.\n" for n in range(150))
SMALL = ["--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--block-size", "16"]
SMALL += ["--batch-size", "4", "--max-iters", "4", "--eval-interval", "2", "--threads", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a text and a small model in `first`."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text(TEXT)
    _run("shakespeare-char", "--data", "story.txt", "--out", "first", *SMALL)
    return tmp_path


def _run(*arguments: str) -> Any:
    done = CliRunner().invoke(train, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_training_goes_on_from_a_model(folder: Path) -> None:
    still = ["--learning-rate", "1e-9", "--max-iters", "1", "--batch-size", "2"]
    before = ["finetune", "--data", "story.txt", "--split", "90/10", "--from", "first"]
    answer = _run(*before, "--out", "second", *still)
    # A step that changes nothing leaves the model as it was.
    assert answer["validation_loss"] == pytest.approx(
        json.loads((folder / "first" / "log" / "log.jsonl").read_text().splitlines()[-1])[
            "validation"
        ],
        abs=2e-3,
    )
    a, b = (load_file(folder / name / "model.safetensors") for name in ("first", "second"))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-3)
    card = (folder / "second" / "README.md").read_text()
    assert "trained from first further on story.txt" in card
    assert "--from first\n" in card


def test_sizes_belong_to_the_model(folder: Path) -> None:
    start = open_start(open_checkpoint(str(folder / "first")))
    settings = PRESETS["finetune"].settings
    taken = start.settings(settings, {"n_layer": 1, "n_ctx": 8})
    assert (taken.n_layer, taken.n_head, taken.n_embd, taken.n_ctx) == (1, 2, 16, 8)
    assert taken.learning_rate == settings.learning_rate
    with pytest.raises(UsageError, match="has n_layer 1, not 2"):
        start.settings(settings, {"n_layer": 2})
    with pytest.raises(UsageError, match="sees 16 tokens at once, not 32"):
        start.settings(settings, {"n_ctx": 32})


def test_a_shorter_context_keeps_the_first_positions(folder: Path) -> None:
    _run(
        "finetune", "--data", "story.txt", "--from", "first", "--block-size", "8", "--out", "short"
    )
    assert load_file(folder / "short" / "model.safetensors")["transformer.wpe.weight"].shape == (
        8,
        16,
    )
    assert np.isfinite(Reference(folder / "short").logits([0, 1, 2])).all()


def test_a_model_without_biases_has_zeros_for_them(folder: Path) -> None:
    import torch

    from icgpt.train.model import Gpt

    weights = load_file(folder / "first" / "model.safetensors")
    bare = {n.removeprefix("transformer."): w for n, w in weights.items() if ".bias" not in n}
    save_file(bare, folder / "first" / "model.safetensors")
    start = open_start(open_checkpoint(str(folder / "first")))
    settings = start.settings(PRESETS["finetune"].settings, {})
    model = Gpt(settings, start.vocabulary.size)
    start.put_into(model)
    state = model.state_dict()
    assert not any(one.any() for name, one in state.items() if name.endswith(".bias"))
    name = "transformer.h.0.mlp.c_fc.weight"
    assert torch.equal(state[name], torch.from_numpy(weights[name]).float())


def test_characters_that_the_model_lacks_are_told(folder: Path) -> None:
    (folder / "story.txt").write_text(TEXT.replace("and", "&"))
    arguments = ["finetune", "--data", "story.txt", "--from", "first", "--out", "second"]
    result = CliRunner().invoke(train, arguments)
    assert isinstance(result.exception, VocabularyError)
    assert "'&'" in str(result.exception)
    assert not (folder / "second").exists()


def _configure(folder: Path, **changes: Any) -> None:
    path = folder / "first" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_activation_is_taken_over(folder: Path) -> None:
    _configure(folder, activation_function="gelu")
    start = open_start(open_checkpoint(str(folder / "first")))
    assert start.settings(PRESETS["finetune"].settings, {}).activation == "gelu"
    with pytest.raises(UsageError, match="has activation gelu, not gelu_new"):
        start.settings(PRESETS["finetune"].settings, {"activation": "gelu_new"})
    _run(
        "finetune", "--data", "story.txt", "--from", "first", "--out", "second", "--max-iters", "1"
    )
    config = json.loads((folder / "second" / "config.json").read_text())
    assert config["activation_function"] == "gelu"


def test_an_untied_head_is_refused(folder: Path) -> None:
    _configure(folder, tie_word_embeddings=False)
    weights = load_file(folder / "first" / "model.safetensors")
    weights["lm_head.weight"] = weights["transformer.wte.weight"].copy()
    save_file(weights, folder / "first" / "model.safetensors")
    with pytest.raises(CheckpointError, match="can't be trained further"):
        open_start(open_checkpoint(str(folder / "first")))


def test_without_a_tokenizer_there_is_nothing_to_train_on(folder: Path) -> None:
    (folder / "first" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        open_start(open_checkpoint(str(folder / "first")))


def test_a_preset_for_models_needs_one(folder: Path) -> None:
    result = CliRunner().invoke(train, ["finetune", "--data", "story.txt"])
    assert isinstance(result.exception, UsageError)
    assert "--from SOURCE" in (result.exception.hint or "")


def test_vocabularies_of_models() -> None:
    letters = Characters("cab")
    known = of_model(json.dumps(letters.tokenizer_json()).encode(), 3)
    assert isinstance(known, Characters)
    assert known.encode("abc").tolist() == [1, 2, 0]
    assert known.decode([0, 1, 2]) == "cab"
    words = learnt(TEXT, 300)
    again = of_model(json.dumps(words.tokenizer_json()).encode(), 310)
    assert again.unit == "token"
    assert again.size == 310
    assert again.encode(TEXT).tolist() == words.encode(TEXT).tolist()

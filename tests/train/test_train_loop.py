"""Training itself, on a text of a few thousand characters. Needs PyTorch."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from gpt2_reference import Reference

from icgpt.train import data, export
from icgpt.train.errors import DivergedError
from icgpt.train.presets import Settings

torch = pytest.importorskip("torch")

from icgpt.train import loop  # noqa: E402
from icgpt.train.model import Gpt  # noqa: E402
from icgpt.train.muon import orthogonalise  # noqa: E402

TEXT = "".join(f"{n} sheep and {n + 1} sheep are {2 * n + 1} sheep.\n" for n in range(150))
SETTINGS = Settings(
    n_layer=2,
    n_head=2,
    n_embd=16,
    n_ctx=24,
    dropout=0.1,
    batch=8,
    max_iters=60,
    warmup=5,
    matrix_lr=0.02,
    other_lr=0.01,
    weight_decay=0.1,
    clip=1.0,
    eval_every=20,
    seed=7,
)


class Quiet:
    """A watcher that remembers, and stops the run after `last` steps."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last
        self.checks: list[tuple[int, float, float]] = []
        self.steps = 0

    def started(self, parameters: int) -> None:
        self.parameters = parameters

    def stepped(self, step: int, loss: float) -> None:
        self.steps = step

    def checked(self, step: int, train: float, validation: float) -> None:
        self.checks.append((step, train, validation))

    def wants_stop(self) -> bool:
        return self.steps == self.last


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _train(
    folder: Path, settings: Settings = SETTINGS, watcher: Quiet | None = None
) -> loop.Result:
    corpus = data.prepare(TEXT.encode(), settings.n_ctx)
    export.open_folder(folder)
    return loop.run(corpus, settings, folder, watcher or Quiet())


def test_losses_fall_and_the_folder_stands(tmp_path: Path) -> None:
    watcher = Quiet()
    result = _train(tmp_path, watcher=watcher)
    assert [step for step, _, _ in watcher.checks] == [20, 40, 60]
    assert result.iterations == 60
    assert not result.interrupted
    assert result.validation_loss < watcher.checks[0][2] - 0.3
    assert result.validation_loss < 0.75 * math.log(20)
    assert len(result.sample) == 400
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [20, 40, 60]
    # The reported loss is that of the files, as another implementation computes it.
    corpus = data.prepare(TEXT.encode(), SETTINGS.n_ctx)
    reference = Reference(tmp_path)
    ids = [int(i) for i in corpus.validation]
    windows = [ids[i : i + 25] for i in range(0, len(ids) - 1, 24)]
    total = sum(reference.loss(window) * (len(window) - 1) for window in windows)
    assert total / (len(ids) - 1) == pytest.approx(result.validation_loss, abs=1e-5)
    assert result.parameters == sum(w.size for w in reference.weights.values())


def test_same_seed_same_weights(tmp_path: Path) -> None:
    short = dataclasses.replace(SETTINGS, max_iters=12)
    other = dataclasses.replace(short, seed=8)
    for name, settings in (("a", short), ("b", short), ("c", other)):
        _train(tmp_path / name, settings)
    a, b, c = ((tmp_path / n / "model.safetensors").read_bytes() for n in "abc")
    assert a == b
    assert a != c


def test_a_stopped_run_saves(tmp_path: Path) -> None:
    result = _train(tmp_path, watcher=Quiet(last=3))
    assert result.interrupted
    assert result.iterations == result.best_iteration == 3
    assert np.isfinite(Reference(tmp_path).logits([0, 1])).all()


def test_divergence_is_an_error(tmp_path: Path) -> None:
    wild = dataclasses.replace(SETTINGS, other_lr=1e30, max_iters=4, warmup=1)
    with pytest.raises(DivergedError, match="no longer a number"):
        _train(tmp_path, wild)
    assert not (tmp_path / "model.safetensors").exists()


def test_every_token_comes_about_once_a_pass() -> None:
    ids = np.arange(24 * 40 + 30)
    stream = loop.batches(ids, SETTINGS)
    seen = np.zeros(len(ids), dtype=int)
    for _ in range(5):  # 5 batches of 8 windows: one pass of 40
        x, y = next(stream)
        assert x.shape == y.shape == (8, 24)
        assert torch.equal(x + 1, y)
        np.add.at(seen, y.numpy().ravel(), 1)
    assert seen.max() == 1
    assert seen.sum() == 960


def test_learning_rate_climbs_and_falls() -> None:
    rates = [loop.learning_rate(step, SETTINGS) for step in range(61)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[4]
    assert rates[60] == pytest.approx(0.0)
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_orthogonal_updates_have_even_singular_values() -> None:
    stack = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalise(stack))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.3


def test_state_has_the_names_of_the_checkpoint() -> None:
    model = Gpt(SETTINGS, 20)
    names = set(model.state_dict())
    assert "transformer.h.1.attn.c_attn.weight" in names
    assert model.state_dict()["transformer.h.0.mlp.c_fc.weight"].shape == (16, 64)
    assert not any("attn.bias" in name.removesuffix("c_attn.bias") for name in names)
    assert len(names) == 4 + 2 * 12

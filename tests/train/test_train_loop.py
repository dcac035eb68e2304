"""Training itself, on a text of a few thousand characters. Needs PyTorch."""

from __future__ import annotations

import dataclasses
import math
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_reference import Reference

from icgpt.train import data, export, log
from icgpt.train.corpus import prepare
from icgpt.train.errors import DivergedError, OutputError, ResumeError
from icgpt.train.presets import Settings

torch = pytest.importorskip("torch")

from icgpt.train import loop, state  # noqa: E402
from icgpt.train.batches import Batches  # noqa: E402
from icgpt.train.model import Gpt  # noqa: E402
from icgpt.train.muon import orthogonalise  # noqa: E402
from icgpt.train.optimisers import learning_rate  # noqa: E402

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
    learning_rate=0.01,
    weight_decay=0.1,
    clip=1.0,
    eval_every=20,
    seed=7,
)

CORPUS = prepare(data.cut(TEXT.encode(), (90, 10)), SETTINGS.n_ctx)


class Quiet:
    """A watcher that remembers, and stops the run after `last` steps."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last
        self.checks: list[tuple[int, float, float]] = []
        self.losses: list[float] = []
        self.steps = 0

    def started(self, parameters: int, step: int) -> None:
        self.parameters, self.begun = parameters, step

    def stepped(self, step: int, loss: float) -> None:
        self.steps = step
        self.losses.append(loss)

    def checked(self, entry: dict[str, Any]) -> None:
        self.checks.append((entry["step"], entry["train"], entry["validation"]))

    def wants_stop(self) -> bool:
        return self.steps == self.last


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _train(
    folder: Path,
    settings: Settings = SETTINGS,
    watcher: Quiet | None = None,
    resume: bool = False,
) -> loop.Result:
    export.open_folder(folder, resume)
    return loop.run(CORPUS, settings, folder, watcher or Quiet(), resume=resume)


def test_losses_fall_and_the_folder_stands(tmp_path: Path) -> None:
    watcher = Quiet()
    result = _train(tmp_path, watcher=watcher)
    assert [step for step, _, _ in watcher.checks] == [20, 40, 60]
    assert result.iterations == 60
    assert not result.interrupted
    assert result.validation_loss < watcher.checks[0][2] - 0.3
    assert result.validation_loss < 0.75 * math.log(20)
    assert len(result.sample) == 400
    assert [entry["step"] for entry in log.entries(tmp_path)] == [20, 40, 60]
    assert not state.has_state(tmp_path)
    # The reported loss is that of the files, as another implementation computes it.
    reference = Reference(tmp_path)
    ids = [int(i) for i in CORPUS.validation]
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


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_run_that_was_broken_off_goes_on_as_if_unbroken(tmp_path: Path, optimizer: str) -> None:
    settings = SETTINGS.changed(max_iters=24, eval_every=8, grad_accum=2, optimizer=optimizer)
    whole, first, second = Quiet(), Quiet(last=11), Quiet()
    expected = _train(tmp_path / "whole", settings, whole)
    assert _train(tmp_path / "broken", settings, first).interrupted
    found = _train(tmp_path / "broken", settings, second, resume=True)
    assert (first.begun, second.begun) == (0, 11)
    np.testing.assert_allclose(first.losses + second.losses, whole.losses, atol=1e-6)
    assert found.validation_loss == pytest.approx(expected.validation_loss, abs=1e-6)
    logged = [entry["step"] for entry in log.entries(tmp_path / "broken")]
    assert logged == [8, 11, 16, 24]
    assert not state.has_state(tmp_path / "broken")


def test_resume_begins_where_nothing_is(tmp_path: Path) -> None:
    watcher = Quiet()
    _train(tmp_path, SETTINGS.changed(max_iters=2), watcher, resume=True)
    assert watcher.begun == 0
    assert len(watcher.losses) == 2


def test_resume_refuses_what_would_be_another_run(tmp_path: Path) -> None:
    _train(tmp_path, watcher=Quiet(last=2))
    with pytest.raises(ResumeError, match="with seed 7, now it is 8"):
        _train(tmp_path, SETTINGS.changed(seed=8), resume=True)
    other = prepare(data.cut(TEXT.upper().encode(), (90, 10)), SETTINGS.n_ctx)
    with pytest.raises(ResumeError, match="another text"):
        loop.run(other, SETTINGS, tmp_path, Quiet(), resume=True)
    assert state.has_state(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"x" * 1000])
def test_resume_refuses_a_damaged_state(tmp_path: Path, content: bytes) -> None:
    (tmp_path / state.STATE_FILE).write_bytes(content)
    with pytest.raises(ResumeError, match="can't be read"):
        _train(tmp_path, resume=True)


def test_a_kill_while_the_state_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.changed(max_iters=12, eval_every=4)
    whole, second = Quiet(), Quiet()
    _train(tmp_path / "whole", settings, whole)
    saved: list[int] = []
    save = torch.save

    def dies(content: dict[str, Any], file: Any) -> None:
        saved.append(content["standing"]["step"])
        if len(saved) == 2:
            file.write(b"half a state")
            raise KeyboardInterrupt
        save(content, file)

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "broken", settings)
    _train(tmp_path / "broken", settings, second, resume=True)
    assert second.begun == 4
    np.testing.assert_allclose(second.losses, whole.losses[4:], atol=1e-6)


@pytest.mark.parametrize("limit", [3_000, 60_000])  # below the model's size, below the state's
def test_a_full_disk_is_an_error(tmp_path: Path, limit: int) -> None:
    export.open_folder(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written: File too large") as caught:
            loop.run(CORPUS, SETTINGS.changed(max_iters=1), tmp_path, Quiet())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Free some space" in (caught.value.hint or "")
    assert (tmp_path / "model.safetensors").exists() == (limit == 60_000)
    assert not list(tmp_path.glob(".*"))


def test_early_stop(tmp_path: Path) -> None:
    # Weights that hardly move: no evaluation is better than the first by much, if at all.
    still = SETTINGS.changed(learning_rate=1e-12, matrix_lr=1e-12, dropout=0.0, eval_every=2)
    watcher = Quiet()
    result = _train(tmp_path, still.changed(patience=3, weight_decay=0.0), watcher)
    assert not result.interrupted
    assert result.iterations < 60
    assert result.iterations - result.best_iteration == 6


def test_divergence_is_an_error(tmp_path: Path) -> None:
    wild = dataclasses.replace(SETTINGS, learning_rate=1e30, max_iters=4, warmup=1)
    with pytest.raises(DivergedError, match="no longer a number"):
        _train(tmp_path, wild)
    assert not (tmp_path / "model.safetensors").exists()


def test_every_token_comes_about_once_a_pass() -> None:
    ids = np.arange(24 * 40 + 30)
    stream = Batches(ids, SETTINGS)
    seen = np.zeros(len(ids), dtype=int)
    for _ in range(5):  # 5 batches of 8 windows: one pass of 40
        x, y = stream.rows(stream.next_starts())
        assert x.shape == y.shape == (8, 24)
        assert torch.equal(x + 1, y)
        np.add.at(seen, y.numpy().ravel(), 1)
    assert seen.max() == 1
    assert seen.sum() == 960


def test_learning_rate_climbs_and_falls() -> None:
    rates = [learning_rate(step, SETTINGS) for step in range(61)]
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

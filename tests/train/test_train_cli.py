"""`icgpt train` as a person calls it."""

from __future__ import annotations

import dataclasses
import json
import shlex
import signal
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from icgpt.cli.train import train
from icgpt.train import data, presets, progress
from icgpt.train.errors import DataError, OutputError, TorchMissingError

TEXT = "".join(f"{n} sheep and {n + 1} sheep are {2 * n + 1} sheep.\n" for n in range(150))
TINY = presets.PRESETS["shakespeare-char"].settings.changed(
    n_layer=1, n_head=2, n_embd=8, n_ctx=16, batch=4, max_iters=6, warmup=2, eval_every=3
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The preset made tiny, and a folder with a text to work in."""
    for name in ("shakespeare-char", "shakespeare-bpe"):
        made = dataclasses.replace(presets.PRESETS[name], settings=TINY)
        monkeypatch.setitem(presets.PRESETS, name, made)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text(TEXT)
    return tmp_path


def test_help_has_examples() -> None:
    result = CliRunner().invoke(train, ["--help"])
    assert result.exit_code == 0
    for part in ("Examples:", "--data FILE", "--max-iters N", "--out FOLDER", "--seed", "--json"):
        assert part in result.output


@pytest.mark.parametrize(
    "arguments",
    [[], ["no-such-preset"], ["shakespeare-char", "--max-iters", "0"]],
)
def test_usage_errors(arguments: list[str]) -> None:
    assert CliRunner().invoke(train, arguments).exit_code == 2


def test_missing_torch_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    for name in [n for n in sys.modules if n in ("icgpt.train.loop", "icgpt.train.model")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("icgpt.train.loop", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(train, ["shakespeare-char", "--data", "story.txt"])
    assert isinstance(result.exception, TorchMissingError)
    assert "pip install 'icgpt[train]'" in (result.exception.hint or "")
    assert not (tiny / "shakespeare-char").exists()


def test_a_run(tiny: Path) -> None:
    pytest.importorskip("torch")
    arguments = ["shakespeare-char", "--data", "story.txt", "--max-iters", "5", "--json"]
    result = CliRunner().invoke(train, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["folder"] == "shakespeare-char"
    assert answer["iterations"] == 5
    assert not answer["interrupted"]
    assert 0 < answer["validation_loss"] < 5
    assert "step 3:" in result.stderr
    text = (tiny / "shakespeare-char" / "README.md").read_text()
    assert "icgpt train shakespeare-char --data story.txt --max-iters 5\n" in text
    assert f"{answer['validation_loss']:.4f}" in text
    assert answer["data_sha256"] in text
    # A bare name would mean the model in the box.
    assert "icgpt upload model ./shakespeare-char\n" in text
    assert f"icgpt upload model {tiny}/shakespeare-char\n" in result.stderr
    # A second run would overwrite the first.
    again = CliRunner().invoke(train, arguments)
    assert isinstance(again.exception, OutputError)
    other = CliRunner().invoke(
        train, ["shakespeare-char", "--data", "story.txt", "--out", "b", "--seed", "3"]
    )
    assert other.exit_code == 0
    assert other.stdout.startswith("b: validation loss ")
    card_of_b = (tiny / "b" / "README.md").read_text()
    assert "\n# b\n" in card_of_b
    assert "icgpt upload model ./b\n" in card_of_b


def test_bad_data_leaves_no_folder(tiny: Path) -> None:
    pytest.importorskip("torch")
    (tiny / "empty.txt").write_bytes(b"")
    (tiny / "latin.txt").write_bytes(b"caf\xe9" * 1000)
    for name in ("empty.txt", "latin.txt", "absent.txt"):
        result = CliRunner().invoke(train, ["shakespeare-char", "--data", name])
        assert isinstance(result.exception, DataError)
    assert not (tiny / "shakespeare-char").exists()


def test_interrupt_saves_and_says_so(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    stepped = progress.ProgressWatcher.stepped

    def step_with_signal(self: progress.ProgressWatcher, step: int, loss: float) -> None:
        stepped(self, step, loss)
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(progress.ProgressWatcher, "stepped", step_with_signal)
    before = signal.getsignal(signal.SIGINT)
    arguments = ["shakespeare-char", "--data", "story.txt", "--json"]
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["interrupted"]
    assert answer["iterations"] == 2
    assert (tiny / "shakespeare-char" / "model.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_with_subwords_tells_the_test_loss(tiny: Path) -> None:
    pytest.importorskip("torch")
    arguments = ["shakespeare-bpe", "--data", "story.txt", "--vocab-size", "300", "--n-embd", "16"]
    shares = ["--split", "60/20/20", "--json"]
    result = CliRunner().invoke(train, arguments + shares, catch_exceptions=False)
    answer = json.loads(result.stdout)
    assert 0 < answer["test_loss"] < 8
    assert answer["parameters"] == 300 * 16 + 16 * 16 + 12 * 16 * 16 + 13 * 16 + 2 * 16
    text = (tiny / "shakespeare-bpe" / "README.md").read_text()
    assert f"| test loss, nats per token | {answer['test_loss']:.4f} |" in text
    command = shlex.join(["icgpt", "train", *arguments, "--split", "60/20/20"])
    assert sorted(shlex.split(text.split("```sh\n")[1].split("\n")[0])) == sorted(
        shlex.split(command)
    )


@pytest.mark.parametrize("shares", ["90", "50/40", "a/b", "100/0", "40/30/20/10"])
def test_shares_must_make_a_hundred(shares: str) -> None:
    result = CliRunner().invoke(train, ["shakespeare-char", "--split", shares])
    assert result.exit_code == 2


def test_every_setting_has_an_option() -> None:
    settings = {field.name for field in dataclasses.fields(presets.Settings)}
    assert settings & {parameter.name for parameter in train.params} == settings


def test_a_known_text_has_its_name() -> None:
    pytest.importorskip("torch")
    assert data.cut(TEXT.encode(), (90, 10), "story.txt").name == "story.txt"

"""Every training command of docs/training.md, run with sizes that take a moment."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from model_kit import ROOT

from icgpt.cli.train import train
from icgpt.train import data, presets, vocabulary

PAGE = (ROOT / "docs" / "training.md").read_text()
COMMANDS = re.findall(r"^icgpt train (.*)$", PAGE, re.M)
TEXT = "The course of true love never did run smooth.\nThe quick brown fox did.\n" * 60
TINY = ["--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--block-size", "16"]
BRIEF = ["--batch-size", "2", "--max-iters", "2", "--eval-interval", "1", "--device", "cpu"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the page speaks of, and a short text in place of Shakespeare's."""
    (tmp_path / "letters").mkdir()
    for name in ("story.txt", "letters/1.txt", "letters/2.txt"):
        (tmp_path / name).write_text(TEXT)
    monkeypatch.setattr(data, "shakespeare", lambda _: TEXT.encode())
    monkeypatch.setattr(data.plays, "wheel", lambda _: b"")
    monkeypatch.setattr(data, "shakespeare_plays", lambda _: data.cut(TEXT.encode(), (80, 10, 10)))
    monkeypatch.setattr(vocabulary, "gpt2", lambda: vocabulary.learnt(TEXT, 300))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_trains(command: str, project: Path) -> None:
    pytest.importorskip("torch")
    words = shlex.split(command)
    sizes = ["--block-size", "16"] if "--from" in words else TINY
    result = CliRunner().invoke(train, [*words, *sizes, *BRIEF], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    folder = project / (words[words.index("--out") + 1] if "--out" in words else words[0])
    assert (folder / "model.safetensors").stat().st_size > 0
    assert ">> The course" in result.stdout or "--prompt" not in words


def test_the_table_is_that_of_the_presets() -> None:
    for name, preset in presets.PRESETS.items():
        row = next(
            line for line in PAGE.splitlines() if line.startswith("|") and f"`{name}`" in line
        )
        s = preset.settings
        steps = (
            "200 x 16 windows" if name == "finetune" else f"{s.max_iters:,} x {s.tokens_a_step():,}"
        )
        assert steps in row
        if preset.data:
            assert f"{s.n_layer} layers, {s.n_embd} wide" in row


def test_held_out_plays_are_named() -> None:
    for name in (*data.plays.VALIDATION, *data.plays.TEST):
        assert name.replace("-", " ").casefold() in PAGE.casefold()

"""The environment of an earlier service: CKPT_PATH, MODEL_NAME, TORCH_THREADS, MAX_CTX, API_KEY."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from model_kit import GOLDEN
from serve_kit import SECONDS

from icgpt.checkpoint import MODEL_SHAPES, open_checkpoint
from icgpt.checkpoint.labels import labels_of
from icgpt.checkpoint.state_dict import UntoldError
from icgpt.checkpoint.vocabularies import characters_form
from icgpt.cli.tasks import opened_as, tasks_of
from icgpt.errors import UsageError

TORCH = GOLDEN / "torch-files"
LETTERS = "abcdefghijk"
SIZES = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16, "vocab_size": 11}


def base(folder: Path) -> Path:
    """A folder with the configuration and the tokenizer of the golden torch files."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **SIZES}))
    tokenizer = characters_form({letter: n for n, letter in enumerate(LETTERS)})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@contextmanager
def command(folder: Path, *arguments: str, **environment: str) -> Iterator[str]:
    """`icgpt serve` in a folder; the address that it tells."""
    with subprocess.Popen(
        [sys.executable, "-m", "icgpt", "serve", "--port", "0", *arguments],
        cwd=folder,
        env={**os.environ, "ICGPT_CACHE_DIR": str(folder / "cache"), **environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        try:
            assert service.stdout is not None
            yield service.stdout.readline().strip()
        finally:
            service.terminate()


@pytest.mark.parametrize("form", ["plain.pth", "object.pth", "wrapped.pth"])
def test_the_documented_forms_and_variables(form: str, tmp_path: Path) -> None:
    """A state dict, a model object, a dict with "state_dict": read without PyTorch."""
    shutil.copy(TORCH / form, tmp_path / "mine.pth")
    variables = {
        "CKPT_PATH": "mine.pth",
        "MODEL_NAME": str(base(tmp_path / "base")),
        "TORCH_THREADS": "1",
        "MAX_CTX": "12",
        "API_KEY": "secret",
    }
    with command(tmp_path, **variables) as url:
        asked = {"prompt": "abcabcabcabcabc", "max_new_tokens": 4}
        assert requests.post(f"{url}/generate", json=asked, timeout=SECONDS).status_code == 401
        headers = {"x-api-key": "secret"}
        done = requests.post(f"{url}/generate", json=asked, headers=headers, timeout=SECONDS)
        assert done.json()["usage"]["total_tokens"] == 12
        health = requests.get(f"{url}/health", timeout=SECONDS).json()
        assert health == {"status": "ok", "model": "mine.pth", "backend": "local"}


def test_bare_weights_are_taken_for_gpt2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As MODEL_NAME is gpt2 where nobody sets it; weights of other sizes are refused."""
    monkeypatch.setenv("ICGPT_CACHE_DIR", str(tmp_path))
    wrapped = str(TORCH / "tied.pth")
    with pytest.raises(UntoldError):
        open_checkpoint(wrapped)
    with pytest.raises(Exception, match="of 2 layers, 8 wide; gpt2 has 12, 768 wide") as caught:
        opened_as(open_checkpoint, wrapped)
    assert "config.json" in caught.value.hint  # type: ignore[attr-defined]
    tiny = replace(MODEL_SHAPES["gpt2"], n_layer=2, n_head=4, n_embd=8)
    monkeypatch.setitem(MODEL_SHAPES, "gpt2", tiny)
    assert opened_as(open_checkpoint, wrapped).config.n_head == 4
    # What says its sizes itself is believed.
    assert opened_as(open_checkpoint, str(TORCH / "object.pth")).config.n_head == 2


def test_whose_model_a_task_gets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ICGPT_CACHE_DIR", str(tmp_path))
    loaded: list[str] = []

    def load(checkpoint: Any) -> Any:
        loaded.append(checkpoint.name)
        return checkpoint

    def tasks(usual: str | None, **told: str) -> Any:
        loaded.clear()
        nothing = dict.fromkeys(("got", "got_prompt", "spam", "spam_prompt"))
        return tasks_of(open_checkpoint, load, usual, **{**nothing, **told})

    classifier = str(GOLDEN / "classifier")
    own = tasks(classifier)  # it writes and judges
    assert loaded == ["classifier"]
    assert (
        [one.name for one in own.labels]
        == ["ham", "spam"]
        == [one.name for one in labels_of(own.spam)]
    )
    for usual in ("shakespeare-char", None):
        plain = tasks(usual)
        assert (plain.got, plain.spam, plain.labels, loaded) == (None, None, [], [])
    both = tasks("shakespeare-char", spam=classifier, got=classifier)
    assert loaded == ["classifier", "classifier"]
    assert both.labels
    words = tasks(None, spam="shakespeare-char", spam_prompt="{text}?", got_prompt="x{text}")
    assert (words.labels, words.spam_form, words.got_form) == ([], "{text}?", "x{text}")
    with pytest.raises(UsageError, match="no --spam-prompt"):
        tasks(classifier, spam_prompt="{text}?")

"""`icgpt ui` as a person calls it, and what it says when something is missing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from cli_kit import Cli
from model_kit import ROOT

from icgpt.cli import run

SECONDS = 60


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """The command, and the first line that it prints. It must end well with Ctrl-C."""
    pytest.importorskip("gradio", reason="Gradio is missing: ./scripts/setup --browser")
    started = subprocess.Popen(
        [sys.executable, "-m", "icgpt", "ui", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    try:
        yield started.stdout.readline()
        started.send_signal(signal.SIGINT)
        rest, told = started.communicate(timeout=SECONDS)
    finally:
        started.kill()
        started.wait()
    assert (started.returncode, rest) == (0, "")
    assert "Ctrl-C" in told
    assert "Traceback" not in told


@pytest.mark.usefixtures("alone")
def test_a_page_for_the_built_in_model() -> None:
    with served() as url:
        assert "context 256" in requests.get(url.strip(), timeout=SECONDS).text


def test_a_page_for_a_folder_and_a_canister(deployed: Cli) -> None:
    deployed("upload", "model", "shakespeare-char")
    folder = ROOT / "icgpt" / "models" / "shakespeare-char"
    options = ["--canister", "model", "--precision", "int8", "--json"]
    with served(str(folder), "shakespeare-char", *options) as line:
        said = json.loads(line)
        assert said["models"] == ["shakespeare-char", "shakespeare-char (2)", "model"]
        page = requests.get(said["url"], timeout=SECONDS)
        assert "context 256" in page.text
        other = requests.get(said["url"], headers={"Host": "example.org"}, timeout=SECONDS)
        assert other.status_code == 400


@pytest.mark.usefixtures("alone")
def test_without_gradio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "icgpt.ui.page", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert run(["ui", "no-such-model"]) == 1
    assert 'pip install "icgpt[ui]"' in capsys.readouterr().err


@pytest.mark.usefixtures("alone")
def test_what_is_no_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="Gradio is missing: ./scripts/setup --browser")
    assert run(["ui", "no-such-model"]) == 1
    assert "no-such-model doesn't exist" in capsys.readouterr().err
    assert run(["ui", "--canister", "model"]) == 3
    assert "icgpt network start" in capsys.readouterr().err

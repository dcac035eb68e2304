"""What the tests of the command line build on: commands run in a project, a model of characters."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from model_kit import ROOT, tiny_config, write_model

from icgpt.cli import common, run

WASM = ROOT / "canister" / "build" / "model.wasm.gz"
ALPHABET = "\n !',-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def characters(folder: Path) -> Path:
    """A tiny model of characters, with its tokenizer."""
    vocab = {character: place for place, character in enumerate(ALPHABET)}
    write_model(folder, tiny_config(vocab_size=len(vocab), icgpt={"context": "slide"}))
    words = {
        "version": "1.0",
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    (folder / "tokenizer.json").write_text(json.dumps(words))
    return folder


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Somebody at a terminal answers what is asked."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    monkeypatch.setattr(common, "can_ask", lambda: True)


class Cli:
    """Runs commands in a project folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys
        self.err = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        self.capsys.readouterr()
        found = run(arguments)
        said = self.capsys.readouterr()
        self.err = said.err
        assert found == code, said.err
        return said.out

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))

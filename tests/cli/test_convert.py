"""`icgpt convert`: other forms into Hugging Face's, and eight bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_kit import Cli
from model_kit import GOLDEN
from safetensors.numpy import load_file


def test_nanogpt_into_transformers_form(icgpt: Cli, tmp_path: Path) -> None:
    done = icgpt.json("convert", str(GOLDEN / "torch-files" / "nanogpt.pt"), "--out", "story")
    folder = Path("story")
    assert done["folder"] == "story"
    assert done["files"] == {file.name: file.stat().st_size for file in folder.iterdir()}
    config = json.loads((folder / "config.json").read_bytes())
    attention = load_file(folder / "model.safetensors")["transformer.h.0.attn.c_attn.weight"]
    assert attention.shape == (config["n_embd"], 3 * config["n_embd"])
    icgpt("convert", "shakespeare-char", "--out", "story", code=1)
    assert "is there already" in icgpt.err


def test_eight_bits(icgpt: Cli) -> None:
    said = icgpt("convert", "shakespeare-char", "--precision", "int8", "--out", "small")
    assert said == "small: 2.73 million parameters, 2.8 MB\n"
    again = icgpt.json("convert", "small", "--out", "large")
    assert again["parameters"] == 2_731_200
    assert again["files"]["model.safetensors"] > 3.9 * 2_731_200


@pytest.mark.parametrize("out", ["", "story.txt"])
def test_what_is_no_folder(icgpt: Cli, out: str) -> None:
    Path("story.txt").write_text("To be")
    icgpt("convert", "shakespeare-char", *(["--out", out] if out else []), code=1 if out else 2)
    assert Path("story.txt").read_text() == "To be"

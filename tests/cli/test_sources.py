"""`icgpt upload` from the forms that models come in, and what the canister then answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_kit import Cli
from hub_server import HubServer
from model_kit import GOLDEN

TORCH = GOLDEN / "torch-files"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICGPT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """The model of the other files, as transformers would save it."""
    folder = tmp_path / "reference"
    folder.mkdir()
    shutil.copy(TORCH / "model.safetensors", folder)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16, "vocab_size": 11}
    config = {"model_type": "gpt2", "activation_function": "gelu", **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_every_form_is_the_same_model(
    deployed: Cli, reference: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(source: str, *options: str) -> str:
        deployed("upload", "model", source, *options)
        return deployed("infer", "1", "2", "3", "-n", "8", "-t", "0")

    wanted = answer(str(reference))
    assert len(wanted.split()) == 8
    for name in ("nanogpt.pt", "compiled.pt", "parallel.pt"):
        assert answer(str(TORCH / name)) == wanted
    shutil.copy(TORCH / "older.pth", reference)
    assert answer(str(reference / "older.pth")) == wanted
    with HubServer({"owner/model": reference}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert answer("owner/model", "--revision", "main") == wanted
    assert not list(cache.iterdir()), "what was made for an upload is still there"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["whole.pth"], 1, "token embedding"),
        (["plain.pth"], 2, "--model-name"),
        (["plain.pth", "--model-name", "gpt2"], 1, "2 layers"),
        (["plain.pth", "--model-name", "gpt9"], 2, "no model name"),
    ],
)
def test_what_needs_another_word(arguments: list[str], code: int, word: str, icgpt: Cli) -> None:
    name, *options = arguments
    icgpt("upload", "model", str(TORCH / name), *options, code=code)
    assert word in icgpt.err

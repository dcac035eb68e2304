"""The folder that a run leaves: names, forms, and what stays whole when writing fails."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from icgpt.files import write_atomically
from icgpt.train import export
from icgpt.train.errors import OutputError
from icgpt.train.presets import PRESETS

SETTINGS = PRESETS["shakespeare-char"]


def test_tokenizer_is_one_token_a_character() -> None:
    alphabet = '\n !az"\\é😀'
    tokenizer = Tokenizer.from_str(json.dumps(export.tokenizer_json(alphabet)))
    text = 'a  z\n\n"!\\é 😀 a '
    encoded = tokenizer.encode(text)
    assert encoded.ids == [alphabet.index(character) for character in text]
    assert tokenizer.decode(encoded.ids) == text
    assert tokenizer.get_vocab_size() == len(alphabet)


def test_model_files(tmp_path: Path) -> None:
    weights = {"transformer.wte.weight": np.full((3, 4), 0.5, dtype=np.float16)}
    export.open_folder(tmp_path / "new" / "model")
    export.write_model(tmp_path / "new" / "model", SETTINGS, "abc", weights)
    folder = tmp_path / "new" / "model"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "log.jsonl",
        "model.safetensors",
        "tokenizer.json",
    ]
    loaded = load_file(folder / "model.safetensors")
    assert loaded["transformer.wte.weight"].dtype == np.float16
    assert json.loads((folder / "config.json").read_bytes())["vocab_size"] == 3


def test_log_grows_by_lines(tmp_path: Path) -> None:
    export.open_folder(tmp_path)
    export.append_log(tmp_path, {"step": 1})
    export.append_log(tmp_path, {"step": 2})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_model_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputError, match="holds a model already"):
        export.open_folder(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious"


def test_unwritable_folder_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        export.open_folder(tmp_path / "file" / "model")


def test_failures_while_writing_are_typed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / "file" / "model"
    with pytest.raises(OutputError, match="cannot be written"):
        export.write_model(folder, SETTINGS, "abc", {})
    with pytest.raises(OutputError, match="cannot be written"):
        export.write_card(folder, "# card")
    with pytest.raises(OutputError, match="cannot be written"):
        export.append_log(folder, {"step": 1})


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644

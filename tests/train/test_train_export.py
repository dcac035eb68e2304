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
from icgpt.train import export, log
from icgpt.train.errors import OutputError
from icgpt.train.presets import PRESETS
from icgpt.train.vocabulary import Characters

SETTINGS = PRESETS["shakespeare-char"].settings
LETTERS = Characters("abc")


def test_tokenizer_is_one_token_a_character() -> None:
    alphabet = '\n !az"\\é😀'
    tokenizer = Tokenizer.from_str(json.dumps(Characters(alphabet).tokenizer_json()))
    text = 'a  z\n\n"!\\é 😀 a '
    encoded = tokenizer.encode(text)
    assert encoded.ids == [alphabet.index(character) for character in text]
    assert tokenizer.decode(encoded.ids) == text
    assert tokenizer.get_vocab_size() == len(alphabet)


def test_model_files(tmp_path: Path) -> None:
    weights = {"transformer.wte.weight": np.full((3, 4), 0.5, dtype=np.float16)}
    export.open_folder(tmp_path / "new" / "model")
    export.write_model(tmp_path / "new" / "model", SETTINGS, LETTERS, weights)
    folder = tmp_path / "new" / "model"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "model_args.json",
        "tokenizer.json",
        "vocabulary.json",
    ]
    loaded = load_file(folder / "model.safetensors")
    assert loaded["transformer.wte.weight"].dtype == np.float16
    assert json.loads((folder / "config.json").read_bytes())["vocab_size"] == 3
    assert json.loads((folder / "vocabulary.json").read_bytes()) == {"a": 0, "b": 1, "c": 2}
    arguments = json.loads((folder / "model_args.json").read_bytes())
    assert (arguments["block_size"], arguments["n_embd"]) == (256, 192)


def _entry(step: int) -> dict[str, float]:
    return {
        "step": step,
        "train": 2.5,
        "validation": 2.75,
        "seconds": 3.0,
        "tokens_per_second": 1234.5,
    }


def test_log_grows_by_lines(tmp_path: Path) -> None:
    log.begin(tmp_path)
    log.append(tmp_path, _entry(1000))
    log.append(tmp_path, _entry(2000))
    assert log.entries(tmp_path) == [_entry(1000), _entry(2000)]
    words = (tmp_path / "log" / "log.txt").read_text().splitlines()
    assert words[0] == (
        "step 1,000: training loss 2.5000, validation loss 2.7500, 1,234 tokens/s, 3 s"
    )


def test_log_of_a_run_that_goes_on(tmp_path: Path) -> None:
    log.begin(tmp_path)
    for step in (10, 20, 30):
        log.append(tmp_path, _entry(step))
    with (tmp_path / "log" / "log.jsonl").open("a") as file:
        file.write('{"step": 40, "tra')  # a kill in the middle of a line
    log.begin(tmp_path, 20)
    assert [entry["step"] for entry in log.entries(tmp_path)] == [10, 20]
    assert len((tmp_path / "log" / "log.txt").read_text().splitlines()) == 2
    log.begin(tmp_path)
    assert log.entries(tmp_path) == []


def test_a_model_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputError, match="holds a model already"):
        export.open_folder(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious"


def test_a_complete_model_is_not_trained_again(tmp_path: Path) -> None:
    for name in ("model.safetensors", "README.md"):
        (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(OutputError, match="holds a model already") as caught:
        export.open_folder(tmp_path, resume=True)
    assert "complete" in (caught.value.hint or "")
    (tmp_path / "state.pt").write_bytes(b"")
    export.open_folder(tmp_path, resume=True)
    with pytest.raises(OutputError) as caught:
        export.open_folder(tmp_path)
    assert "--resume" in (caught.value.hint or "")


def test_what_a_killed_run_left_half_written_goes(tmp_path: Path) -> None:
    for name in (".model.safetensors.ab1_x9zz", ".state.pt.0a1b2c3d", "log/.log.txt.abcdefgh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    for name in (".hidden", ".gitattributes", "state.pt"):
        (tmp_path / name).write_bytes(b"mine")
    export.open_folder(tmp_path, resume=True)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [".gitattributes", ".hidden", "log", "state.pt"]


def test_unwritable_folder_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        export.open_folder(tmp_path / "file" / "model")


def test_failures_while_writing_are_typed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / "file" / "model"
    with pytest.raises(OutputError, match="cannot be written"):
        export.write_model(folder, SETTINGS, LETTERS, {})
    with pytest.raises(OutputError, match="cannot be written"):
        export.write_card(folder, "# card")
    with pytest.raises(OutputError, match="cannot be written"):
        log.append(folder, _entry(1))


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

"""Uploads that break off, and canisters that hold something else than was sent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from model_kit import tiny_config, tiny_tensors, write_model

from icgpt import upload as room
from icgpt.checkpoint import Checkpoint, open_checkpoint
from icgpt.client import ModelCanister
from icgpt.errors import NetworkError, RefusedError, UploadError
from icgpt.results import FileInfo
from icgpt.upload import Step, upload


class BrokenError(NetworkError):
    """The line went dead."""


def breaking(model: ModelCanister, monkeypatch: pytest.MonkeyPatch, after: int) -> list[int]:
    """Lets `after` chunks through; the sizes of the chunks that went through."""
    sizes: list[int] = []
    append = model.append

    def sometimes(file: str, data: bytes) -> FileInfo:
        if len(sizes) == after:
            raise BrokenError("gone")
        sizes.append(len(data))
        return append(file, data)

    monkeypatch.setattr(model, "append", sometimes)
    return sizes


@pytest.fixture
def checkpoint(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(room, "CHUNK_BYTES", 1000)
    return open_checkpoint(str(tiny))


@pytest.mark.parametrize("after", [0, 1, 4])
def test_an_upload_broken_off_is_gone_on_with(
    canister: ModelCanister, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    with monkeypatch.context() as patch:
        sizes = breaking(canister, patch, after)
        with pytest.raises(BrokenError):
            upload(canister, checkpoint)
    assert sizes == [1000] * after
    assert not canister.info().ready
    steps: list[Step] = []
    done = upload(canister, checkpoint, steps.append)
    assert done.resumed == 1000 * after
    assert done.sent == checkpoint.length - done.resumed
    assert canister.info().ready
    assert [step.name for step in steps][-1] == "setup"
    sent = [step.done for step in steps if step.name == "upload"]
    assert sent == sorted(sent)
    assert sent[-1] == checkpoint.length
    assert not upload(canister, checkpoint).changed


def test_what_was_sent_of_another_model_is_dropped(
    canister: ModelCanister, checkpoint: Checkpoint
) -> None:
    canister.append("safetensors", b"of another model")
    canister.append("config", b"{" * 2000)
    done = upload(canister, checkpoint)
    assert done.resumed == 0
    assert canister.files()["safetensors"].live == FileInfo(
        checkpoint.files["safetensors"].length, done.hashes["safetensors"]
    )


def test_a_stored_upload_is_set_up_without_sending_it_again(
    canister: ModelCanister, checkpoint: Checkpoint
) -> None:
    for kind, file in checkpoint.files.items():
        canister.append(kind, file.path.read_bytes())
    canister.store("safetensors")
    done = upload(canister, checkpoint)
    assert (done.sent, done.resumed) == (0, checkpoint.length)
    assert done.changed


def test_the_same_model_without_its_tokenizer_is_another_one(
    canister: ModelCanister, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "m", tiny_config())
    vocab = {letter: place for place, letter in enumerate("abcdefghijk")}
    words = {"version": "1.0", "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(words))
    assert upload(canister, open_checkpoint(str(folder))).changed
    assert canister.info().tokenizer
    (folder / "tokenizer.json").unlink()
    assert upload(canister, open_checkpoint(str(folder))).changed
    assert not canister.info().tokenizer
    assert not upload(canister, open_checkpoint(str(folder))).changed


def test_somebody_else_uploads_at_the_same_time(
    canister: ModelCanister, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = canister.append
    calls = []

    def crowded(file: str, data: bytes) -> FileInfo:
        calls.append(file)
        if len(calls) == 2:
            append(file, b"mine")
        return append(file, data)

    monkeypatch.setattr(canister, "append", crowded)
    with pytest.raises(UploadError, match="not the 2,000 bytes"):
        upload(canister, checkpoint)


def test_the_live_model_stays_when_the_canister_refuses_the_new_one(
    canister: ModelCanister, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    upload(canister, checkpoint)
    before = canister.infer([1, 2], 5, 0.0)
    # Sound at a glance, and refused by the canister: a token of the template is not in the model.
    config = tiny_config(icgpt={"template": {"prefix": [11], "suffix": [], "stop": []}})
    other = open_checkpoint(str(write_model(tmp_path / "other", config)))
    with pytest.raises(RefusedError, match="template"):
        upload(canister, other)
    assert canister.infer([1, 2], 5, 0.0) == before
    assert canister.info().ready
    weights = {name: np.negative(one) for name, one in tiny_tensors(tiny_config()).items()}
    good = open_checkpoint(str(write_model(tmp_path / "good", tiny_config(), weights)))
    assert upload(canister, good).changed

"""Uploads by the seed's appends (`icgpt upload --seed-flow`) that break off."""

from __future__ import annotations

from pathlib import Path

import pytest

from icgpt import seed_upload, sending
from icgpt.checkpoint import Checkpoint, open_checkpoint
from icgpt.client import ModelCanister
from icgpt.errors import NetworkError, UploadError
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
    for room in (sending, seed_upload):
        monkeypatch.setattr(room, "CHUNK_BYTES", 1000)
    return open_checkpoint(str(tiny))


@pytest.mark.parametrize("after", [0, 1, 4])
def test_an_upload_broken_off_is_gone_on_with(
    canister: ModelCanister, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    with monkeypatch.context() as patch:
        sizes = breaking(canister, patch, after)
        with pytest.raises(BrokenError):
            upload(canister, checkpoint, seed_flow=True)
    assert sizes == [1000] * after
    assert not canister.info().ready
    steps: list[Step] = []
    done = upload(canister, checkpoint, steps.append, seed_flow=True)
    assert done.resumed == 1000 * after
    assert done.sent == checkpoint.length - done.resumed
    assert canister.info().ready
    assert [step.name for step in steps][-1] == "setup"
    sent = [step.done for step in steps if step.name == "upload"]
    assert sent == sorted(sent)
    assert sent[-1] == checkpoint.length
    assert not upload(canister, checkpoint, seed_flow=True).changed


def test_what_was_sent_of_another_model_is_dropped(
    canister: ModelCanister, checkpoint: Checkpoint
) -> None:
    canister.append("safetensors", b"of another model")
    canister.append("config", b"{" * 2000)
    done = upload(canister, checkpoint, seed_flow=True)
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
    done = upload(canister, checkpoint, seed_flow=True)
    assert (done.sent, done.resumed) == (0, checkpoint.length)
    assert done.changed


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
        upload(canister, checkpoint, seed_flow=True)


def test_a_half_upload_of_the_other_kind_makes_way(
    canister: ModelCanister, checkpoint: Checkpoint
) -> None:
    canister.begin("packed", 10, bytes(32))
    canister.begin("safetensors", 10, bytes(32))
    canister.begin("config", 10, bytes(32))
    upload(canister, checkpoint, seed_flow=True)
    canister.append("safetensors", b"half")
    canister.begin("tokenizer", 10, bytes(32))
    upload(canister, checkpoint, force=True)
    assert canister.info().ready
    assert not any(state.staged for state in canister.files().values())

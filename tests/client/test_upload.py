"""Uploads that break off or are killed, and canisters that hold something else than was sent."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import requests
from model_kit import target, tiny_config, tiny_tensors, write_model

from icgpt import sending
from icgpt.checkpoint import Checkpoint, open_checkpoint
from icgpt.client import ModelCanister
from icgpt.connect import Network, connect
from icgpt.errors import CanisterError, NetworkError, RefusedError, UploadError
from icgpt.identity import Identity
from icgpt.network import NetworkInfo
from icgpt.principal import to_text
from icgpt.results import FileInfo
from icgpt.upload import Step, upload


class BrokenError(NetworkError):
    """The line went dead."""


Write = Callable[[str, int, bytes], FileInfo]


def breaking(model: ModelCanister, monkeypatch: pytest.MonkeyPatch, after: int) -> list[int]:
    """Lets `after` chunks through; where those begin that went through."""
    places: list[int] = []
    lock = threading.Lock()
    write: Write = model.write

    def sometimes(file: str, offset: int, data: bytes) -> FileInfo:
        with lock:
            if len(places) == after:
                raise BrokenError("gone")
            places.append(offset)
        return write(file, offset, data)

    monkeypatch.setattr(model, "write", sometimes)
    return places


def counting(model: ModelCanister, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """The chunks that are sent from now on: kind, offset and length."""
    chunks: list[tuple[str, int, int]] = []
    write: Write = model.write

    def counted(file: str, offset: int, data: bytes) -> FileInfo:
        chunks.append((file, offset, len(data)))
        return write(file, offset, data)

    monkeypatch.setattr(model, "write", counted)
    return chunks


@pytest.fixture
def checkpoint(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(sending, "CHUNK_BYTES", 500)
    return open_checkpoint(str(tiny))


@pytest.mark.parametrize("after", [0, 1, 9])
def test_an_upload_broken_off_is_gone_on_with(
    canister: ModelCanister, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    with monkeypatch.context() as patch:
        first = breaking(canister, patch, after)
        with pytest.raises(BrokenError):
            upload(canister, checkpoint)
    assert len(first) == after
    assert not canister.info().ready
    found = canister.missing("safetensors")
    assert found is not None
    while found.arrived < 500 * after:  # those on their way when the line went dead
        found = canister.missing("safetensors")
        assert found is not None
    second = counting(canister, monkeypatch)
    steps: list[Step] = []
    done = upload(canister, checkpoint, steps.append)
    assert done.resumed == 500 * after
    assert done.sent == checkpoint.length - done.resumed
    assert not {("safetensors", place, 500) for place in first} & set(second)
    assert len(set(second)) == len(second)
    assert canister.info().ready
    sent = [step.done for step in steps if step.name == "upload"]
    assert sent == sorted(sent)
    assert sent[-1] == checkpoint.length
    assert [step.name for step in steps][-1] == "setup"
    assert not upload(canister, checkpoint).changed


def test_killed_at_twenty_points_no_chunk_is_sent_twice(
    canister: ModelCanister,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    local: NetworkInfo,
    identity: Identity,
) -> None:
    monkeypatch.setattr(sending, "CHUNK_BYTES", 100)
    checkpoint = open_checkpoint(str(write_model(tmp_path / "m", tiny_config(n_embd=16))))
    chunks = sum(-(-file.length // 100) for file in checkpoint.files.values())
    draw = random.Random(5)
    for _ in range(20):
        # The child may send so many chunks, and is killed when at least `goal` have arrived.
        permits = draw.randint(1, (chunks - 1) // 20)
        goal = carried_out(local, canister) + draw.randint(0, permits)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            send_as_allowed(target(local), identity, canister.id, checkpoint, reading)
        os.write(writing, bytes(permits))
        while carried_out(local, canister, settled=False) < goal:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    sent = carried_out(local, canister)
    assert 0 < sent < chunks
    upload(canister, checkpoint)
    assert carried_out(local, canister) == chunks
    assert canister.info().ready


def send_as_allowed(
    network: Network, identity: Identity, canister: bytes, checkpoint: Checkpoint, permits: int
) -> None:
    """Uploads, with a byte from a pipe for every chunk; for a process of its own."""
    try:
        with connect(network, identity) as agent:
            model = ModelCanister(agent, canister)
            write: Write = model.write

            def allowed(file: str, offset: int, data: bytes) -> FileInfo:
                os.read(permits, 1)
                return write(file, offset, data)

            model.write = allowed  # type: ignore[method-assign]
            upload(model, checkpoint)
    finally:
        os._exit(0)


def carried_out(local: NetworkInfo, canister: ModelCanister, settled: bool = True) -> int:
    """Chunks that the network has taken; if settled, once it has nothing more to do."""
    seen = -1
    while True:
        log = requests.get(f"{local.url}/_/messages?last=1000", timeout=10).json()
        mine = [one for one in log if one["canister"] == to_text(canister.id)]
        writes = [one for one in mine if one["method"] == "write" and one["status"] == "replied"]
        still = len(writes) == seen and all(one["status"] == "replied" for one in mine)
        if still or not settled:
            return len(writes)
        seen = len(writes)
        time.sleep(0.05)


def test_what_was_sent_of_another_model_is_dropped(
    canister: ModelCanister, checkpoint: Checkpoint
) -> None:
    canister.begin("safetensors", 5_000, bytes(32))
    canister.write("safetensors", 0, bytes(700))
    canister.append("config", b"{" * 2000)
    canister.begin("tokenizer", 5_000, bytes(32))
    done = upload(canister, checkpoint)
    assert done.resumed == 0
    assert canister.files()["safetensors"].live == FileInfo(
        checkpoint.files["safetensors"].length, done.hashes["safetensors"]
    )
    assert canister.missing("tokenizer") is None


def test_a_committed_upload_is_set_up_without_sending_it_again(
    canister: ModelCanister, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, file in checkpoint.files.items():
        data = file.path.read_bytes()
        canister.begin(kind, len(data), hashlib.sha256(data).digest())
        canister.write(kind, 0, data)
    canister.commit("config", checkpoint.files["config"].sha256())
    chunks = counting(canister, monkeypatch)
    done = upload(canister, checkpoint)
    assert (done.sent, done.resumed, chunks) == (0, checkpoint.length, [])
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
    write: Write = canister.write
    calls = []

    def crowded(file: str, offset: int, data: bytes) -> FileInfo:
        calls.append(file)
        if len(calls) == 5:
            canister.begin("safetensors", 3, bytes(32))
        return write(file, offset, data)

    with monkeypatch.context() as patch:
        patch.setattr(canister, "write", crowded)
        with pytest.raises(CanisterError):
            upload(canister, checkpoint)
    assert upload(canister, checkpoint).changed


def test_a_file_that_changes_while_it_is_sent(
    canister: ModelCanister, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Write = canister.write

    def damaged(file: str, offset: int, data: bytes) -> FileInfo:
        return write(file, offset, bytes(len(data)) if offset == 500 else data)

    with monkeypatch.context() as patch:
        patch.setattr(canister, "write", damaged)
        with pytest.raises((UploadError, CanisterError)) as caught:
            upload(canister, checkpoint)
    assert "not what has arrived" in str(caught.value) or "was dropped" in str(caught.value)
    assert not canister.info().ready
    assert canister.missing("safetensors") is None
    assert upload(canister, checkpoint).changed


def test_the_live_model_stays_when_the_canister_refuses_the_new_one(
    canister: ModelCanister, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    upload(canister, checkpoint)
    before = canister.infer([1, 2], 5, 0.0)
    # Sound at a glance, and refused by the canister: a token of the template is not in the model.
    config = tiny_config(icgpt={"template": {"prefix": [10], "suffix": [], "stop": []}})
    folder = write_model(tmp_path / "other", config)
    other = open_checkpoint(str(folder))
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(re.sub(r'("prefix": \[\s*)10', r"\g<1>11", text))
    with pytest.raises(RefusedError, match="template"):
        upload(canister, other)
    assert canister.infer([1, 2], 5, 0.0) == before
    assert canister.info().ready
    weights = {name: np.negative(one) for name, one in tiny_tensors(tiny_config()).items()}
    good = open_checkpoint(str(write_model(tmp_path / "good", tiny_config(), weights)))
    assert upload(canister, good).changed

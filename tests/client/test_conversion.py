"""Checkpoints that are converted before they are uploaded, and what is kept of that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from model_kit import GOLDEN, tiny_config, tiny_tensors, write_model

from icgpt import conversion, upload_cost
from icgpt.checkpoint import open_checkpoint
from icgpt.client import ModelCanister
from icgpt.upload import Step, upload


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(conversion, "cache_folder", lambda: folder)
    return folder


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


@pytest.mark.parametrize("precision", ["f32", "int8", "int16"])
def test_what_is_converted_here_is_what_the_canister_would_have_made(
    canister: ModelCanister, precision: str
) -> None:
    checkpoint = open_checkpoint(str(GOLDEN / "odd-heads"))
    made_there = upload(canister, checkpoint, precision=precision, seed_flow=True)
    assert made_there.layout is None
    there = canister.info()
    logits = canister.logits([1, 2, 3])
    assert there.precision == precision
    # As the canister has the checkpoint, there is nothing to send but the other precision's name.
    other = "int8" if precision != "int8" else "f32"
    done = upload(canister, checkpoint, precision=other)
    assert (done.sent, canister.info().precision) == (0, other)

    steps: list[Step] = []
    done = upload(canister, checkpoint, steps.append, force=True, precision=precision)
    assert done.layout == there.layout_sha256
    assert (done.sent, done.resumed) == (done.total, 0)
    names = [step.name for step in steps]
    assert list(dict.fromkeys(names)) == ["convert", "upload", "setup"]
    here = canister.info()
    assert (here.layout_sha256, here.precision) == (there.layout_sha256, precision)
    assert here.source_sha256["safetensors"] is None
    assert here.source_sha256["config"] == there.source_sha256["config"]
    assert canister.logits([1, 2, 3]) == logits

    # The same once more is nothing; another precision is another file.
    done = upload(canister, checkpoint, precision=precision)
    assert (done.changed, done.sent) == (False, 0)
    assert upload(canister, checkpoint, precision=other).sent > 0
    assert canister.info().precision == other


def test_the_precision_of_the_config_counts(canister: ModelCanister, tmp_path: Path) -> None:
    config = tiny_config(icgpt={"precision": "int8"})
    checkpoint = open_checkpoint(str(write_model(tmp_path / "m", config)))
    assert upload(canister, checkpoint).layout is not None
    assert canister.info().precision == "int8"
    assert upload(canister, checkpoint, precision="f32").changed
    assert canister.info().precision == "f32"


def test_halves_are_not_made_longer_for_the_way(canister: ModelCanister, tmp_path: Path) -> None:
    config = tiny_config(n_embd=64)
    halves = {name: one.astype(np.float16) for name, one in tiny_tensors(config).items()}
    checkpoint = open_checkpoint(str(write_model(tmp_path / "m", config, halves)))
    done = upload(canister, checkpoint, precision="f32")
    assert (done.layout, done.sent) == (None, checkpoint.length)
    assert canister.info().precision == "f32"
    assert upload(canister, checkpoint, precision="int8", force=True).layout is not None


def test_a_packed_file_is_made_once(
    canister: ModelCanister, tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(str(tiny))
    hashes = {kind: file.sha256() for kind, file in checkpoint.files.items()}
    made: list[str] = []
    pack = conversion.pack
    monkeypatch.setattr(conversion, "pack", lambda *a, **k: (made.append("x"), pack(*a, **k))[1])

    def convert(precision: str) -> bytes:
        return conversion.converted(checkpoint, hashes, precision, lambda done, total: None).sha256

    first = convert("int8")
    assert convert("int8") == first
    assert len(made) == 1
    assert convert("int16") != first
    assert (len(made), len(kept(cache))) == (2, 2)
    # A damaged one is made again.
    (path,) = (path for path in cache.iterdir() if first.hex() in path.name)
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    assert convert("int8") == first
    assert len(made) == 3
    # Another config.json of the same weights is another model.
    hashes["config"] = bytes(32)
    assert convert("int8") == first
    assert (len(made), len(kept(cache))) == (4, 3)
    # When all together are too large, the newest alone stays.
    monkeypatch.setattr(conversion, "KEPT_BYTES", 1)
    hashes["config"] = bytes(31) + b"\x01"
    convert("int8")
    assert len(kept(cache)) == 1


@pytest.mark.parametrize("seed_flow", [False, True])
@pytest.mark.parametrize("precision", [None, "int8"])
def test_what_is_reckoned_is_what_is_sent(
    canister: ModelCanister, precision: str | None, seed_flow: bool
) -> None:
    checkpoint = open_checkpoint("shakespeare-char")
    reckoned = upload_cost.estimate(checkpoint, precision, seed_flow)
    told: list[int] = []
    done = upload(canister, checkpoint, precision=precision, seed_flow=seed_flow, agree=told.append)
    assert done.sent == reckoned.bytes
    assert told == [reckoned.cycles]
    assert json.loads(json.dumps(reckoned.to_json()))["bytes"] == reckoned.bytes
    # A part of the bytes is about that part of the price.
    whole = upload_cost.estimate(checkpoint, "f32", seed_flow=True)
    part = reckoned.bytes / whole.bytes
    assert reckoned.cycles / whole.cycles == pytest.approx(part, rel=0.1)

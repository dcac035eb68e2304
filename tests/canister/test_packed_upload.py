"""Weights that were packed before they were uploaded: the same model, and files that lie."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hands import Hands, packed_files
from model_kit import send, tiny_config, tiny_tensors, with_model, write_model

from icgpt.client import ModelCanister
from icgpt.errors import CanisterError

PRECISIONS = ("f32", "int8", "int16")
CONFIG = tiny_config(n_layer=2)
PackedOf = Callable[[str], bytes]


def put(canister: ModelCanister, packed: bytes, config: dict[str, Any]) -> None:
    send(canister, "packed", packed)
    send(canister, "config", json.dumps(config).encode())
    canister.setup_model()


def put_checkpoint(canister: ModelCanister, folder: Path, precision: str) -> None:
    """Lets the canister pack it."""
    send(canister, "safetensors", (folder / "model.safetensors").read_bytes())
    send(canister, "config", (folder / "config.json").read_bytes())
    canister.set_precision(precision)
    canister.setup_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("m"), CONFIG, tiny_tensors(CONFIG))


def packed_by_canister(
    new_canister: Callable[[], ModelCanister], hands: Hands, folder: Path, precision: str
) -> tuple[bytes, ModelCanister]:
    """The packed file that a canister makes, and another one that has made the same."""
    maker, same = new_canister(), new_canister()
    for canister in (maker, same):
        put_checkpoint(canister, folder, precision)
    (packed,) = packed_files(hands, maker)
    return packed, same


@pytest.mark.parametrize("precision", PRECISIONS)
def test_packed_weights_make_the_same_model(
    canister: ModelCanister,
    new_canister: Callable[[], ModelCanister],
    hands: Hands,
    folder: Path,
    precision: str,
    wasm: bytes,
) -> None:
    packed, made_there = packed_by_canister(new_canister, hands, folder, precision)
    put(canister, packed, CONFIG)
    info = canister.info()
    assert (info.setup, info.precision) == ("ready", precision)
    assert info.layout_sha256 == hashlib.sha256(packed).digest()
    assert info.layout_sha256 == made_there.info().layout_sha256
    assert info.source_sha256["safetensors"] is None
    logits = canister.logits([1, 2, 3])
    assert logits == made_there.logits([1, 2, 3])

    # Set up again, and after an upgrade, it is the same model.
    canister.setup_model()
    hands.into(canister.id)
    hands.into(canister.id, wasm)
    assert (canister.info(), canister.logits([1, 2, 3])) == (info, logits)
    # There is no checkpoint to make another precision of.
    other = PRECISIONS[PRECISIONS.index(precision) - 1]
    canister.set_precision(other)
    with pytest.raises(CanisterError, match=f"packed, in {precision}"):
        canister.setup_model()
    # A checkpoint takes its place, and it the checkpoint's.
    put_checkpoint(canister, folder, other)
    assert canister.info().precision == other
    assert canister.info().source_sha256["safetensors"] is not None
    put(canister, packed, CONFIG)
    assert canister.info().source_sha256["safetensors"] is None
    assert canister.logits([1, 2, 3]) == logits


@pytest.fixture(scope="module")
def int8(new_canister: Callable[[], ModelCanister], hands: Hands, folder: Path) -> bytes:
    return packed_by_canister(new_canister, hands, folder, "int8")[0]


def cut(file: bytes, place: int, new: bytes) -> bytes:
    return file[:place] + new + file[place + len(new) :]


LIES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no packed file": (lambda file: b"x" * len(file), "no packed weights"),
    "a beginning": (lambda file: file[:8], "truncated"),
    "its header alone": (lambda file: file[:200], "truncated"),
    "without its end": (lambda file: file[:-1], "truncated"),
    "more than its end": (lambda file: file + b"x", "truncated or damaged"),
    "another version": (lambda file: cut(file, 8, struct.pack("<I", 9)), "layout 9"),
    "another precision": (lambda file: cut(file, 12, struct.pack("<I", 16)), "truncated"),
    "odd bits": (lambda file: cut(file, 12, struct.pack("<I", 7)), "7 bits"),
    "another length": (lambda file: cut(file, 16, struct.pack("<Q", 1 << 62)), "header"),
    "another model": (lambda file: cut(file, 48, struct.pack("<I", 77)), "another model"),
    "other places": (lambda file: cut(file, 92, b"\xff" * 16), "header"),
    "scales of no number": (lambda file: file[:-64] + np.full(16, np.nan, "f4").tobytes(), "damaged"),
}  # fmt: skip


@pytest.fixture(scope="module")
def serving(new_canister: Callable[[], ModelCanister], folder: Path) -> ModelCanister:
    return with_model(new_canister(), folder)


@pytest.mark.parametrize("name", LIES)
def test_a_packed_file_that_lies(serving: ModelCanister, int8: bytes, name: str) -> None:
    lie, words = LIES[name]
    before = serving.info(), serving.infer([1, 2], 5, 0)
    with pytest.raises(CanisterError, match=words) as caught:
        put(serving, lie(int8), CONFIG)
    assert "trap" not in str(caught.value).lower()
    assert (serving.info(), serving.infer([1, 2], 5, 0)) == before


def test_packed_weights_whose_sums_would_overflow(
    canister: ModelCanister, new_canister: Callable[[], ModelCanister], hands: Hands, tmp_path: Path
) -> None:
    config = tiny_config(n_embd=64)
    folder = write_model(tmp_path / "m", config)
    packed, _ = packed_by_canister(new_canister, hands, folder, "int16")
    (header,) = struct.unpack_from("<I", packed, 32)
    # Finite as floats, and the largest magnitudes as integers of 16 bits.
    loud = packed[:header] + b"\x00\x80" * ((len(packed) - header) // 2)
    with pytest.raises(CanisterError, match="damaged"):
        put(canister, loud, config)
    assert not canister.info().ready
    put(canister, packed, config)
    assert canister.info().ready


def test_packed_weights_of_another_version_ask_for_another_upload(
    canister: ModelCanister, int8: bytes, folder: Path, hands: Hands, wasm: bytes
) -> None:
    put(canister, int8, CONFIG)
    hands.into(canister.id)
    stable = hands.read(canister.id)
    start = stable.index(int8[:200])
    hands.write(canister.id, struct.pack("<I", 9), start + 8, len(stable))
    hands.into(canister.id, wasm)
    with pytest.raises(CanisterError, match="upload the model again"):
        canister.infer([1], 1, 0)
    with pytest.raises(CanisterError, match="layout 9"):
        canister.setup_model()
    put(canister, int8, CONFIG)
    assert canister.info().ready


def test_packed_weights_that_the_heap_can_not_hold(
    new_canister: Callable[[], ModelCanister], hands: Hands, tmp_path: Path
) -> None:
    config = tiny_config(n_layer=5, n_embd=24)
    folder = write_model(tmp_path / "m", config, tiny_tensors(config))
    packed, held = packed_by_canister(new_canister, hands, folder, "int8")
    streamed = new_canister()
    streamed.call("set_heap_for_weights", 5 * 24 * 24 * 12 // 2 + 8_000)
    put(streamed, packed, config)
    assert streamed.info().streamed
    assert streamed.logits([3, 1, 4]) == held.logits([3, 1, 4])
    # The blocks that stay outside are looked at as well.
    spoiled = cut(packed, len(packed) * 3 // 4, b"\xff" * 4096)
    with pytest.raises(CanisterError, match="damaged"):
        put(streamed, spoiled, config)
    assert streamed.logits([3, 1, 4]) == held.logits([3, 1, 4])

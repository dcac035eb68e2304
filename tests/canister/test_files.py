"""Uploads: what has arrived is told, bad files are refused, and the live model is never touched."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_kit import tiny_config, tiny_tensors, upgrade, with_model, write_model
from safetensors.numpy import save

from icgpt.client import ModelCanister
from icgpt.errors import CanisterError, RefusedError


def put(canister: ModelCanister, weights: bytes, config: bytes) -> None:
    """Uploads without the checks that our client makes beforehand."""
    for file, data in (("safetensors", weights), ("config", config)):
        canister.clear(file)
        canister.append(file, data)
    canister.store("safetensors")


def test_every_chunk_is_answered_with_length_and_hash(canister: ModelCanister) -> None:
    chunks = [b"a", b"bc" * 700, b"", b"d" * 63]
    so_far = b""
    for chunk in chunks:
        so_far += chunk
        info = canister.append("safetensors", chunk)
        assert (info.length, info.sha256) == (len(so_far), hashlib.sha256(so_far).digest())
    assert canister.files()["safetensors"].staged == info
    assert canister.length("safetensors") == len(so_far)
    canister.clear("safetensors")
    assert canister.length("safetensors") == 0


def test_a_stored_file_takes_no_more_bytes(canister: ModelCanister) -> None:
    canister.append("tokenizer", b"{}")
    canister.store("tokenizer")
    with pytest.raises(RefusedError, match="clear_tokenizer_bytes"):
        canister.append("tokenizer", b"x")


def test_order_is_explained(canister: ModelCanister) -> None:
    with pytest.raises(RefusedError, match="append_safetensors_bytes"):
        canister.store("safetensors")
    with pytest.raises(RefusedError, match="append_tokenizer_bytes"):
        canister.load("tokenizer")
    canister.append("safetensors", b"x")
    with pytest.raises(RefusedError, match="store_safetensors_bytes_to_stable"):
        canister.load("safetensors")
    with pytest.raises(CanisterError, match="config"):
        canister.setup_model()
    with pytest.raises(CanisterError, match="tokenizer"):
        canister.setup_tokenizer()
    with pytest.raises(CanisterError, match="no model"):
        canister.infer([1], 1, 0)


def test_a_file_has_a_largest_size(canister: ModelCanister) -> None:
    canister.append("config", bytes(1 << 20))
    with pytest.raises(RefusedError, match="at most"):
        canister.append("config", b"x")
    assert canister.length("config") == 1 << 20


def header(entries: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


GOOD = save(tiny_tensors(tiny_config()))

HOSTILE_WEIGHTS: dict[str, bytes] = {
    "empty header": struct.pack("<Q", 0),
    "seven bytes": b"\x01" * 7,
    "huge header": struct.pack("<Q", 2**63) + b"{}",
    "header past the end": struct.pack("<Q", 100) + b"{}",
    "not JSON": struct.pack("<Q", 4) + b"\xff\xfe{}",
    "deep JSON": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "truncated": GOOD[:-1],
    "cut in the header": GOOD[:100],
    "longer than its tensors": GOOD + b"x",
    "offsets past the end": header({"wte.weight": tensor("F32", [11, 8], 0, 352)}),
    "offsets backwards": header({"wte.weight": tensor("F32", [1], 4, 0)}, bytes(4)),
    "shape against offsets": header({"wte.weight": tensor("F32", [11, 8], 0, 4)}, bytes(4)),
    "shape overflows": header({"wte.weight": tensor("F32", [2**63, 4], 0, 4)}, bytes(4)),
    "overlap": header({"a": tensor("F32", [1], 0, 4), "b": tensor("F32", [1], 0, 4)}, bytes(4)),
}


def changed(change: Callable[[dict[str, np.ndarray]], None]) -> bytes:
    tensors = tiny_tensors(tiny_config())
    change(tensors)
    return save(tensors)


def spoil(value: float) -> Callable[[dict[str, np.ndarray]], None]:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["h.0.mlp.c_fc.weight"][3, 5] = value

    return change


WRONG_WEIGHTS: dict[str, tuple[bytes, str]] = {
    "missing tensor": (changed(lambda t: t.pop("h.0.mlp.c_fc.weight")), "h.0.mlp.c_fc.weight"),  # type: ignore[arg-type, return-value]
    "wrong shape": (
        changed(lambda t: t.update({"h.0.mlp.c_fc.weight": np.zeros((8, 31), "f4")})),
        "h.0.mlp.c_fc.weight",
    ),
    "integers": (
        changed(lambda t: t.update({"ln_f.weight": np.zeros(8, "i4")})),
        "ln_f.weight",
    ),
    "unknown dtype": (GOOD.replace(b'"F32"', b'"Q32"'), "wte.weight"),
    "NaN": (changed(spoil(float("nan"))), "h.0.mlp.c_fc.weight"),
    "infinity": (changed(spoil(float("inf"))), "h.0.mlp.c_fc.weight"),
}

WRONG_CONFIG: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{", "config.json"),
    "not an object": (b"[]", "config.json"),
    "no n_head": (json.dumps(tiny_config()).replace("n_head", "heads").encode(), "n_head"),
    "odd heads": (json.dumps(tiny_config(n_head=3)).encode(), "n_head"),
    "zero layers": (json.dumps(tiny_config(n_layer=0)).encode(), "n_layer"),
    "absurd size": (json.dumps(tiny_config(n_embd=2**40)).encode(), "n_embd"),
    "unknown activation": (json.dumps(tiny_config(activation_function="swish")).encode(), "swish"),
    "other family": (json.dumps(tiny_config(model_type="llama")).encode(), "llama"),
}  # fmt: skip


@pytest.fixture(scope="module")
def serving(
    new_canister: Callable[[], ModelCanister], tmp_path_factory: pytest.TempPathFactory
) -> ModelCanister:
    folder = tmp_path_factory.mktemp("tiny")
    return with_model(new_canister(), write_model(folder, tiny_config()))


def refuses(serving: ModelCanister, weights: bytes, config: bytes, words: str) -> None:
    """A set-up fails with these words; the model before it still answers as it did."""
    before = serving.info(), serving.infer([1, 2], 5, 0)
    put(serving, weights, config)
    with pytest.raises(CanisterError, match=words) as caught:
        serving.setup_model()
    assert "trap" not in str(caught.value).lower()
    assert (serving.info(), serving.infer([1, 2], 5, 0)) == before


@pytest.mark.parametrize("name", HOSTILE_WEIGHTS)
def test_hostile_weights(serving: ModelCanister, name: str) -> None:
    refuses(serving, HOSTILE_WEIGHTS[name], json.dumps(tiny_config()).encode(), "safetensors")
    with pytest.raises(RefusedError, match="safetensors"):
        serving.load("safetensors")


@pytest.mark.parametrize("name", WRONG_WEIGHTS)
def test_wrong_weights(serving: ModelCanister, name: str) -> None:
    weights, words = WRONG_WEIGHTS[name]
    refuses(serving, weights, json.dumps(tiny_config()).encode(), words)


@pytest.mark.parametrize("name", WRONG_CONFIG)
def test_wrong_config(serving: ModelCanister, name: str) -> None:
    config, words = WRONG_CONFIG[name]
    refuses(serving, GOOD, config, words)


@pytest.mark.parametrize(
    "tokenizer",
    [
        b"{",
        b"null",
        b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}',
        # An id that the model doesn't have.
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 11}, "merges": []}}',
    ],
)
def test_bad_tokenizers(serving: ModelCanister, tokenizer: bytes) -> None:
    serving.clear("tokenizer")
    serving.append("tokenizer", tokenizer)
    serving.store("tokenizer")
    with pytest.raises(CanisterError, match="tokenizer"):
        serving.setup_tokenizer()
    assert not serving.info().tokenizer
    serving.clear("tokenizer")


def test_a_better_upload_replaces_the_model(
    canister: ModelCanister, tiny: Path, tmp_path: Path
) -> None:
    with_model(canister, tiny)
    first = canister.infer([1], 8, 0)
    other = write_model(tmp_path / "other", tiny_config(), tiny_tensors(tiny_config(), seed=1))
    with_model(canister, other)
    assert canister.infer([1], 8, 0) != first
    with_model(canister, tiny)
    assert canister.infer([1], 8, 0) == first


def test_an_upgrade_keeps_model_upload_and_roles(
    canister: ModelCanister, tiny: Path, wasm: bytes, tmp_path: Path
) -> None:
    with_model(canister, tiny)
    canister.set_public(True)
    canister.add_user(b"\x04")
    canister.clear("safetensors")
    canister.append("safetensors", b"half an upload")
    before = canister.info(), canister.files(), canister.access(), canister.infer([1, 2], 6, 0)

    upgrade(canister, wasm, tmp_path)
    after = canister.info(), canister.files(), canister.access(), canister.infer([1, 2], 6, 0)
    assert after == before
    info = canister.append("safetensors", b" goes on")
    assert info.sha256 == hashlib.sha256(b"half an upload goes on").digest()


def tokenizer_of(vocabulary: str) -> bytes:
    vocab = {character: i for i, character in enumerate(vocabulary)}
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    return json.dumps({"version": "1.0", "model": model, "decoder": {"type": "Fuse"}}).encode()


def test_model_and_tokenizer_are_replaced_together(
    canister: ModelCanister, tiny: Path, tmp_path: Path
) -> None:
    (tiny / "tokenizer.json").write_bytes(tokenizer_of("abcdefghijk"))
    with_model(canister, tiny)
    assert canister.tokenize("ab").token_ids == [0, 1]

    # The tokenizer waits, complete, for the weights it belongs to.
    canister.append("tokenizer", tokenizer_of("kjihgfedcba"))
    canister.store("tokenizer")
    assert canister.tokenize("ab").token_ids == [0, 1]
    weights = save(tiny_tensors(tiny_config(), seed=1))
    put(canister, weights, json.dumps(tiny_config()).encode())
    canister.setup_model()
    assert canister.tokenize("ab").token_ids == [10, 9]

    # A model without one doesn't inherit the tokenizer of another.
    bare = write_model(tmp_path / "bare", tiny_config(), tiny_tensors(tiny_config(), seed=2))
    with_model(canister, bare)
    assert not canister.info().tokenizer
    with pytest.raises(CanisterError, match="tokenizer"):
        canister.tokenize("ab")


def test_a_left_behind_tokenizer_joins_no_other_model(canister: ModelCanister, tiny: Path) -> None:
    canister.append("tokenizer", tokenizer_of("abc"))
    canister.store("tokenizer")
    with_model(canister, tiny)
    assert not canister.info().tokenizer

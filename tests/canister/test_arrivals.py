"""Uploads of chunks at any offset: in every order, more than once, through upgrades, and hostile."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_kit import send, tiny_config, tiny_tensors, upgrade, with_model, write_model
from safetensors.numpy import save

from icgpt.client import ModelCanister
from icgpt.errors import CanisterError, RefusedError
from icgpt.results import FileInfo

CONFIG = json.dumps(tiny_config()).encode()
DATA = random.Random(7).randbytes(10_000)
HASH = hashlib.sha256(DATA).digest()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.mark.parametrize("seed", range(4))
def test_chunks_in_any_order_and_more_than_once(canister: ModelCanister, seed: int) -> None:
    order = random.Random(seed)
    cuts = sorted({0, len(DATA), *order.sample(range(1, len(DATA)), 12)})
    chunks = list(zip(cuts, cuts[1:], strict=False))
    todo = chunks * 2
    order.shuffle(todo)
    begun = canister.begin("safetensors", len(DATA), HASH)
    assert begun.missing == [(0, len(DATA))]
    there: set[tuple[int, int]] = set()
    for start, end in todo:
        info = canister.write("safetensors", start, DATA[start:end])
        there.add((start, end))
        whole = next((one for one in chunks if one not in there), (len(DATA), 0))[0]
        assert info == FileInfo(whole, sha256(DATA[:whole]))
        found = canister.missing("safetensors")
        assert found is not None
        assert found.arrived == sum(b - a for a, b in there)
        absent = {place for a, b in found.missing for place in range(a, b)}
        assert absent == {p for a, b in chunks if (a, b) not in there for p in range(a, b)}
    assert canister.commit("safetensors", HASH) == FileInfo(len(DATA), HASH)
    state = canister.files()["safetensors"]
    assert (state.staged, state.stored, state.live) == (FileInfo(len(DATA), HASH), True, None)
    # What is repeated after the end is as harmless.
    assert canister.commit("safetensors", HASH).length == len(DATA)
    assert canister.write("safetensors", 10, DATA[10:20]).length == len(DATA)
    assert canister.begin("safetensors", len(DATA), HASH).committed


def test_an_upload_is_gone_on_with_or_makes_way_for_another(canister: ModelCanister) -> None:
    canister.begin("config", 100, HASH)
    canister.write("config", 40, bytes(10))
    assert canister.begin("config", 100, HASH).missing == [(0, 40), (50, 100)]
    assert canister.begin("config", 101, HASH).missing == [(0, 101)]
    canister.write("config", 0, bytes(101))
    with pytest.raises(CanisterError, match="was dropped"):
        canister.commit("config", HASH)
    assert canister.missing("config") is None
    canister.begin("config", 100, HASH)
    canister.discard("config")
    assert canister.missing("config") is None


def test_an_upgrade_keeps_what_has_arrived(
    canister: ModelCanister, wasm: bytes, tmp_path: Path
) -> None:
    canister.begin("packed", len(DATA), HASH)
    canister.write("packed", 5_000, DATA[5_000:7_000])
    canister.write("packed", 0, DATA[:3_000])
    before = canister.missing("packed")
    upgrade(canister, wasm, tmp_path)
    assert canister.missing("packed") == before
    canister.write("packed", 3_000, DATA[3_000:5_000])
    info = canister.write("packed", 7_000, DATA[7_000:])
    assert info == FileInfo(len(DATA), HASH)
    assert canister.commit("packed", HASH) == info


def test_a_long_hash_is_cut_into_messages(canister: ModelCanister) -> None:
    data = random.Random(1).randbytes(12 << 20)
    chunk = 1_900_000
    canister.begin("packed", len(data), sha256(data))
    for start in range(chunk, len(data), chunk):
        assert canister.write("packed", start, data[start : start + chunk]).length == 0
    info = canister.write("packed", 0, data[:chunk])
    # A write does not hash all that waits.
    assert chunk < info.length < len(data)
    assert info.sha256 == sha256(data[: info.length])
    canister.call("set_per_message", 1_000_000)
    assert canister.commit("packed", sha256(data)) == FileInfo(len(data), sha256(data))


def test_a_model_of_committed_files(canister: ModelCanister, tmp_path: Path) -> None:
    weights = save(tiny_tensors(tiny_config()))
    send(canister, "safetensors", weights)
    with pytest.raises(CanisterError, match="config"):
        canister.setup_model()
    canister.begin("config", len(CONFIG), sha256(CONFIG))
    with pytest.raises(CanisterError, match="end it with commit"):
        canister.setup_model()
    canister.write("config", 0, CONFIG)
    canister.commit("config", sha256(CONFIG))
    canister.setup_model()
    sources = canister.info().source_sha256
    assert (sources["safetensors"], sources["config"]) == (sha256(weights), sha256(CONFIG))
    assert canister.missing("safetensors") is None

    answer = canister.infer([1, 2], 5, 0)
    other = save(tiny_tensors(tiny_config(), seed=1))
    canister.begin("safetensors", len(other), sha256(other))
    canister.write("safetensors", 0, other)
    assert canister.infer([1, 2], 5, 0) == answer
    canister.commit("safetensors", sha256(other))
    assert canister.infer([1, 2], 5, 0) == answer
    canister.setup_model()
    assert canister.infer([1, 2], 5, 0) != answer


def half(canister: ModelCanister) -> None:
    """An upload of which the middle has arrived."""
    canister.begin("tokenizer", 1_000, HASH)
    canister.write("tokenizer", 400, bytes(200))


HOSTILE: dict[str, tuple[Callable[[ModelCanister], Any], str]] = {
    "not begun": (lambda c: c.write("packed", 0, b"x"), "call begin"),
    "commit of nothing": (lambda c: c.commit("config", HASH), "call begin"),
    "a short hash": (lambda c: c.begin("tokenizer", 5, HASH[:31]), "32 bytes"),
    "a long hash": (lambda c: c.begin("tokenizer", 5, HASH * 1_000), "32 bytes"),
    "no bytes at all": (lambda c: c.begin("tokenizer", 0, HASH), "at least a byte"),
    "a huge config": (lambda c: c.begin("config", (1 << 20) + 1, HASH), "at most"),
    "huge weights": (lambda c: c.begin("packed", (1 << 64) - 1, HASH), "at most"),
    "an empty chunk": (lambda c: c.write("tokenizer", 0, b""), "1000 bytes"),
    "a chunk too long": (lambda c: c.write("tokenizer", 700, bytes(301)), "1000 bytes"),
    "a chunk behind the end": (lambda c: c.write("tokenizer", 1_000, b"x"), "1000 bytes"),
    "an offset without end": (lambda c: c.write("tokenizer", (1 << 64) - 1, b"xy"), "1000 bytes"),
    "overlap in front": (lambda c: c.write("tokenizer", 399, bytes(2)), "a part of"),
    "overlap behind": (lambda c: c.write("tokenizer", 599, bytes(2)), "a part of"),
    "overlap all round": (lambda c: c.write("tokenizer", 0, bytes(1_000)), "a part of"),
    "other bytes": (lambda c: c.write("tokenizer", 500, b"x"), "other bytes"),
    "holes": (lambda c: c.commit("tokenizer", HASH), "800 bytes of the tokenizer"),
    "another hash": (lambda c: c.commit("tokenizer", bytes(32)), "another SHA-256"),
    "an append": (lambda c: c.append("tokenizer", b"x"), "end it with commit"),
    "a store": (lambda c: c.store("tokenizer"), "end it with commit"),
    "a load": (lambda c: c.load("tokenizer"), "end it with commit"),
    "a set-up": (lambda c: c.setup_tokenizer(), "end it with commit"),
}


@pytest.fixture(scope="module")
def with_half(new_canister: Callable[[], ModelCanister]) -> ModelCanister:
    canister = new_canister()
    half(canister)
    return canister


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_refused_changes_nothing(with_half: ModelCanister, name: str) -> None:
    call, words = HOSTILE[name]
    kinds = ("safetensors", "config", "tokenizer", "packed")
    before = with_half.files(), [with_half.missing(kind) for kind in kinds]
    with pytest.raises(RefusedError, match=words) as caught:
        call(with_half)
    assert "trap" not in str(caught.value).lower()
    assert (with_half.files(), [with_half.missing(kind) for kind in kinds]) == before


def test_scattered_chunks_are_bounded(canister: ModelCanister) -> None:
    canister.begin("config", 1 << 20, HASH)
    for place in range(256):
        canister.write("config", 10 + 20 * place, b"x")
    with pytest.raises(CanisterError, match="too many holes"):
        canister.write("config", 1 << 19, b"x")
    canister.write("config", 11, b"y")
    found = canister.missing("config")
    assert found is not None
    assert (len(found.missing), found.arrived) == (257, 257)


def test_the_seeds_way_and_ours_replace_each_other(canister: ModelCanister) -> None:
    canister.append("safetensors", b"half a file")
    assert canister.missing("safetensors") is None
    with pytest.raises(CanisterError, match="call begin"):
        canister.write("safetensors", 11, b"more")
    canister.begin("safetensors", 4, HASH)
    assert canister.length("safetensors") == 0
    canister.clear("safetensors")
    assert canister.missing("safetensors") is None
    assert canister.append("safetensors", b"abc").sha256 == sha256(b"abc")


def test_weights_come_in_one_form_at_a_time(canister: ModelCanister) -> None:
    canister.begin("packed", 10, HASH)
    canister.begin("safetensors", 10, HASH)
    assert canister.missing("packed") is None
    canister.begin("packed", 10, HASH)
    assert canister.missing("safetensors") is None
    canister.append("safetensors", b"x")
    assert canister.missing("packed") is None
    canister.begin("packed", 10, HASH)
    assert canister.files()["safetensors"].staged is None


def test_files_do_not_change_while_a_set_up_runs(canister: ModelCanister, tmp_path: Path) -> None:
    config = tiny_config(n_embd=256, n_layer=4)
    with_model(canister, write_model(tmp_path / "m", config))
    data = json.dumps(config).encode()
    canister.begin("config", len(data), sha256(data))
    canister.write("config", 0, data)
    canister.commit("config", sha256(data))
    canister.call("set_per_message", 1_000_000)
    running = threading.Thread(target=canister.setup_model)
    running.start()
    while canister.info().setup != "setting_up":
        assert running.is_alive()
    refused: list[str] = []
    for call in (
        lambda: canister.begin("tokenizer", 1, HASH),
        lambda: canister.write("config", 0, data),
        lambda: canister.commit("config", sha256(data)),
        lambda: canister.discard("config"),
    ):
        with pytest.raises(RefusedError) as caught:
            call()
        refused.append(str(caught.value))
    running.join()
    assert all("setup_model is running" in one for one in refused)
    assert canister.info().ready

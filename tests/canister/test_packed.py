"""Packed weights in stable memory: one identity everywhere, and what is refused.

Also models that the heap can't hold, and what an upgrade finds.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from hands import Hands, magics
from model_kit import (
    GOLDEN,
    MakeCanister,
    tiny_config,
    tiny_tensors,
    upgrade,
    with_model,
    write_model,
)

from icgpt.agent import Agent
from icgpt.checkpoint import open_checkpoint
from icgpt.client import ModelCanister
from icgpt.errors import CanisterError
from icgpt.upload import upload

# What the engine's own test has too (canister/engine/tests/packed.rs).
LAYOUTS = {
    "f32": "71998662ada37947ed66e42ca7fd0885d2bb68008681fbe5f43f3f1600e8f95d",
    "int8": "3a49eef673a25ff910e2c4215f7819313f21e7484afd215dec084960c39ac75f",
    "int16": "fcc4951398e3c3bd7a2493f36da6c0403fe090e8e30b2e1595b13f2129e985b1",
}
@pytest.mark.parametrize("precision", LAYOUTS)
def test_the_canister_packs_as_the_engine_does_natively(
    canister: ModelCanister, precision: str
) -> None:
    checkpoint = open_checkpoint(str(GOLDEN / "odd-heads"))
    upload(canister, checkpoint, precision=precision, seed_flow=True)
    layout = canister.info().layout_sha256
    assert layout is not None
    assert layout.hex() == LAYOUTS[precision]
    # Cut into messages of the least size it is the same.
    canister.call("set_per_message", 1_000_000)
    canister.set_precision(precision)
    canister.setup_model()
    assert canister.info().layout_sha256 == layout


def test_stable_memory_from_before_weights_were_packed_moves_along(
    hands: Hands, agent: Agent, wasm: bytes, tmp_path: Path
) -> None:
    stored = gzip.decompress((Path(__file__).parent / "layout-1.gz").read_bytes())
    canister = hands.new()
    hands.write(canister, stored)
    hands.into(canister, wasm)

    model = ModelCanister(agent, canister)
    info, files, access = model.info(), model.files(), model.access()
    assert (info.setup, info.precision, info.layout_version) == ("ready", "f32", 2)
    assert info.layout_sha256 is not None
    assert access.public
    assert access.users == [b"\x04"]
    assert files["safetensors"].staged is not None
    assert files["safetensors"].staged.length == len(b"half an upload")
    assert model.tokenize("abc").token_ids == [0, 1, 2]
    logits = model.logits([1, 2, 3])
    assert logits[:2] == pytest.approx([-0.0987004935, 0.2012604028], rel=1e-5)

    # A second upgrade finds the layout of today.
    hands.into(canister)
    hands.into(canister, wasm)
    assert model.info() == info
    assert model.logits([1, 2, 3]) == logits
    model.clear("safetensors")
    with_model(model, write_model(tmp_path / "m", tiny_config(), tiny_tensors(tiny_config(), 1)))
    assert model.logits([1, 2, 3]) != logits


@pytest.mark.parametrize(
    ("at", "change"),
    [
        (0, b"\x88"),  # no packed file
        (8, struct.pack("<I", 77)),  # another version of the layout
        (12, struct.pack("<I", 4)),  # another precision
        (16, struct.pack("<Q", 2**63)),  # another length
        (56, struct.pack("<I", 9)),  # another model
        (100, b"\xff" * 16),  # another place for its first arrays
    ],
)
def test_packed_weights_that_are_not_what_they_were_are_packed_again(
    canister: ModelCanister, tiny: Path, hands: Hands, wasm: bytes, at: int, change: bytes
) -> None:
    upload(canister, open_checkpoint(str(tiny)), precision="int8", seed_flow=True)
    before = canister.info(), canister.logits([1, 2, 3])
    hands.into(canister.id)
    stable = hands.read(canister.id)
    (start,) = magics(stable)
    assert stable[start + at : start + at + len(change)] != change
    hands.write(canister.id, change, start + at, len(stable))
    hands.into(canister.id, wasm)
    assert (canister.info(), canister.logits([1, 2, 3])) == before
    hands.into(canister.id)
    assert stable[start + at : start + at + len(change)] in hands.read(canister.id)
    hands.into(canister.id, wasm)
    assert (canister.info(), canister.logits([1, 2, 3])) == before


@pytest.mark.parametrize("precision", LAYOUTS)
def test_a_model_larger_than_the_heap_computes_the_same(
    new_canister: MakeCanister, precision: str, wasm: bytes, tmp_path: Path
) -> None:
    config = tiny_config(
        n_layer=5,
        n_embd=24,
        n_positions=80,
        icgpt={"precision": precision, "context": "slide"},
    )
    folder = write_model(tmp_path / "m", config, tiny_tensors(config))
    held, streamed = new_canister(), new_canister()
    most = 5 * 24 * 24 * {"f32": 4, "int8": 1, "int16": 2}[precision] * 12 // 2 + 16_000
    streamed.call("set_heap_for_weights", most)
    for canister in (held, streamed):
        with_model(canister, folder)
    assert (held.info().streamed, streamed.info().streamed) == (False, True)
    assert held.info().layout_sha256 == streamed.info().layout_sha256
    # Three passes, each of which reads the blocks that the heap does not hold.
    long = [i * 7 % 11 for i in range(75)]
    # One message, and messages so small that each block needs one of its own.
    for per_message in (32_000_000_000, 1_000_000):
        streamed.call("set_per_message", per_message)
        assert streamed.logits([3, 1, 4, 1, 5]) == held.logits([3, 1, 4, 1, 5])
        assert streamed.score([3, 1], [4, 1, 5]) == held.score([3, 1], [4, 1, 5])
        assert streamed.logits(long) == held.logits(long)
        assert streamed.score(long[:30], long[30:]) == held.score(long[:30], long[30:])
        assert streamed.infer([2, 7], 20, 0) == held.infer([2, 7], 20, 0)
    upgrade(streamed, wasm, tmp_path)
    assert streamed.info().streamed
    assert streamed.logits([3, 1, 4]) == held.logits([3, 1, 4])

    # Less than one block at a time is refused, and changes nothing.
    assert "Err" in streamed.call("set_heap_for_weights", 1_000)
    assert "Err" in streamed.call("set_heap_for_weights", 1 << 32)
    assert "Ok" in streamed.call("set_heap_for_weights", 1 << 31)
    streamed.setup_model()
    assert not streamed.info().streamed
    assert streamed.logits([3, 1, 4]) == held.logits([3, 1, 4])


def test_the_heap_may_be_too_small_for_a_model(canister: ModelCanister, tiny: Path) -> None:
    canister.call("set_heap_for_weights", 100)
    with pytest.raises(CanisterError, match="at most 100 fit"):
        with_model(canister, tiny)
    assert not canister.info().ready

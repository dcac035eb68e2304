"""Which precision a set-up gives the weights: a manager's choice, else config.json's, else f32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from model_kit import tiny_config, tiny_tensors, upgrade, with_model, write_model

from icgpt.checkpoint import open_checkpoint
from icgpt.client import ModelCanister
from icgpt.errors import CanisterError
from icgpt.upload import upload

QUANTISED = ("int8", "int16")


def test_config_json_says_and_a_manager_overrides(canister: ModelCanister, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", tiny_config(icgpt={"precision": "int16"}))
    checkpoint = open_checkpoint(str(folder))
    assert upload(canister, checkpoint, seed_flow=True).changed
    assert canister.info().precision == "int16"
    assert not upload(canister, checkpoint, seed_flow=True).changed
    # Only the precision is another one: nothing has to be sent again.
    done = upload(canister, checkpoint, precision="int8", seed_flow=True)
    assert (done.changed, done.sent, done.resumed) == (True, 0, 0)
    assert canister.info().precision == "int8"
    assert canister.info().next_precision is None
    assert not upload(canister, checkpoint, precision="int8", seed_flow=True).changed
    assert upload(canister, checkpoint, seed_flow=True).changed
    assert canister.info().precision == "int16"


def test_without_a_word_it_is_f32(canister: ModelCanister, tiny: Path) -> None:
    with_model(canister, tiny)
    assert canister.info().precision == "f32"


@pytest.mark.parametrize("name", ["", "int4", "F32", "float", "int8 "])
def test_an_unknown_precision_is_refused(canister: ModelCanister, name: str) -> None:
    canister.set_precision("int8")
    with pytest.raises(CanisterError, match="f32, int8 and int16"):
        canister.set_precision(name)
    assert canister.info().next_precision == "int8"


def test_a_failed_set_up_keeps_the_choice_and_the_model(
    canister: ModelCanister, tiny: Path
) -> None:
    with_model(canister, tiny)
    before = canister.infer([1, 2], 8, 0)
    canister.set_precision("int8")
    canister.clear("safetensors")
    canister.append("safetensors", b"no weights")
    canister.store("safetensors")
    with pytest.raises(CanisterError, match="safetensors"):
        canister.setup_model()
    info = canister.info()
    assert (info.precision, info.next_precision) == ("f32", "int8")
    assert canister.infer([1, 2], 8, 0) == before


@pytest.mark.parametrize("precision", QUANTISED)
def test_quantised_logits_are_close_and_survive_an_upgrade(
    canister: ModelCanister, precision: str, wasm: bytes, tmp_path: Path
) -> None:
    config = tiny_config(n_embd=32, n_layer=2)
    folder = write_model(tmp_path / "m", config, tiny_tensors(config))
    checkpoint = open_checkpoint(str(folder))
    upload(canister, checkpoint)
    exact = canister.logits([3, 1, 4])
    upload(canister, checkpoint, precision=precision, seed_flow=True)
    rounded = canister.logits([3, 1, 4])
    assert rounded != exact
    most = max(abs(one) for one in exact)
    bound = 0.05 if precision == "int8" else 0.005
    assert max(abs(a - b) for a, b in zip(rounded, exact, strict=True)) < bound * most
    before = canister.info()
    (tmp_path / "project").mkdir()
    upgrade(canister, wasm, tmp_path / "project")
    assert canister.info() == before
    assert canister.logits([3, 1, 4]) == rounded


def test_one_model_in_many_messages(
    new_canister: Callable[[], ModelCanister], shakespeare: ModelCanister
) -> None:
    """A set-up cut into messages of the least size gives the same weights as one in a message."""
    whole, cut = new_canister(), new_canister()
    cut.call("set_per_message", 1_000_000)
    checkpoint = open_checkpoint("shakespeare-char")
    for canister in (whole, cut):
        upload(canister, checkpoint, precision="int8", seed_flow=True)
    ids = shakespeare.tokenize("To be, or not to be").token_ids
    assert whole.logits(ids) == cut.logits(ids) != shakespeare.logits(ids)

"""Checkpoints in eight bits: nothing is lost that a model in int8 has, and damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from model_kit import GOLDEN, ROOT
from safetensors.numpy import load_file, save_file

from icgpt.checkpoint import open_checkpoint
from icgpt.checkpoint.eight_bits import write_eight_bits
from icgpt.engine import pack
from icgpt.errors import CheckpointError

BOXED = ROOT / "icgpt" / "models" / "shakespeare-char"
# Tied and untied heads, F32, F16 and BF16, biases and none, both families.
MODELS = ["shakespeare-char", "two-blocks", "half", "untied", "no-bias", "gptj-half", "gptj-tied"]


def source(name: str) -> str:
    return name if name == "shakespeare-char" else str(GOLDEN / name)


@pytest.mark.parametrize("name", MODELS)
def test_it_packs_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(source(name))
    small = tmp_path / "small"
    small.mkdir()
    write_eight_bits(checkpoint, small)
    again = open_checkpoint(str(small))
    assert again.config.precision == "int8"
    assert again.parameters == checkpoint.parameters
    pack(checkpoint, tmp_path / "whole", "int8")
    pack(again, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()


def test_what_lies_in_the_file(tmp_path: Path) -> None:
    whole = load_file(BOXED / "model.safetensors")
    write_eight_bits(open_checkpoint(BOXED.name), tmp_path)
    small = load_file(tmp_path / "model.safetensors")
    matrices = {name for name, one in small.items() if one.dtype == np.int8}
    kinds = {name.rsplit(".", 2)[-2] for name in matrices}
    assert kinds == {"wte", "c_attn", "c_proj", "c_fc"}
    assert set(small) == set(whole) | {f"{name}_scale" for name in matrices}
    for name in set(whole) - matrices:
        np.testing.assert_array_equal(small[name], whole[name])
    for name in matrices:
        scale = small[f"{name}_scale"]
        # A step is the highest weight's 127th part; rounding is off by half a step at most.
        assert np.abs(small[name]).max() == 127
        off = np.abs(small[name] - whole[name].astype("f4") / scale)
        assert off.max() < 0.5001
    assert small["transformer.wte.weight_scale"].shape == (len(whole["transformer.wte.weight"]), 1)
    wide = whole["transformer.h.0.attn.c_attn.weight"].shape[1]
    assert small["transformer.h.0.attn.c_attn.weight_scale"].shape == (1, wide)


def _without_scale(tensors: dict[str, np.ndarray]) -> None:
    del tensors["transformer.wte.weight_scale"]


def _turned_scale(tensors: dict[str, np.ndarray]) -> None:
    tensors["transformer.wte.weight_scale"] = tensors["transformer.wte.weight_scale"].reshape(-1)


def _other_type(tensors: dict[str, np.ndarray]) -> None:
    name = "transformer.wte.weight_scale"
    tensors[name] = tensors[name].astype("f2")


def _endless(tensors: dict[str, np.ndarray]) -> None:
    tensors["transformer.wte.weight_scale"][0] = np.inf


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_without_scale, "is in I8 and has no scale of its shape"),
        (_turned_scale, "is in I8 and has no scale of its shape"),
        (_other_type, "is not in F32"),
        (_endless, "not a finite number"),
    ],
)
def test_damage_is_named(
    damage: Callable[[dict[str, np.ndarray]], None], words: str, tmp_path: Path
) -> None:
    write_eight_bits(open_checkpoint(BOXED.name), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(str(tmp_path))


def test_weights_of_zero(tmp_path: Path) -> None:
    """An output without weights has a scale of zero, and stays one."""
    folder = tmp_path / "zeros"
    folder.mkdir()
    tensors = load_file(BOXED / "model.safetensors")
    tensors["transformer.h.0.mlp.c_fc.weight"][:, 0] = 0
    save_file(tensors, folder / "model.safetensors")
    config = (BOXED / "config.json").read_bytes()
    (folder / "config.json").write_bytes(config)
    small = tmp_path / "small"
    small.mkdir()
    write_eight_bits(open_checkpoint(str(folder)), small)
    open_checkpoint(str(small))
    written = load_file(small / "model.safetensors")
    assert not written["transformer.h.0.mlp.c_fc.weight"][:, 0].any()
    assert json.loads((small / "config.json").read_bytes())["icgpt"]["precision"] == "int8"

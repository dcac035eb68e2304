"""A model's folder: files checked against each other before anything is sent."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_kit import GOLDEN
from safetensors.numpy import load_file, save_file

from icgpt.checkpoint import built_in, open_checkpoint
from icgpt.checkpoint.config import parse_config
from icgpt.checkpoint.tokenizer import check_tokenizer
from icgpt.errors import CheckpointError

GPTJ = sorted(path.name for path in GOLDEN.glob("gptj-*"))
EXTRA = ("attn.bias", "masked_bias", "embed_positions")

CONFIG: dict[str, Any] = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 6,
    "n_positions": 5,
    "vocab_size": 3,
}


def tensors(prefix: str = "", dtype: str = "f4", inner: int = 24) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (3, 6),
        "wpe.weight": (5, 6),
        "ln_f.weight": (6,),
        "ln_f.bias": (6,),
    }
    for layer in range(2):
        at = f"h.{layer}."
        shapes[at + "ln_1.weight"] = shapes[at + "ln_1.bias"] = (6,)
        shapes[at + "ln_2.weight"] = shapes[at + "ln_2.bias"] = (6,)
        shapes[at + "attn.c_attn.weight"], shapes[at + "attn.c_attn.bias"] = (6, 18), (18,)
        shapes[at + "attn.c_proj.weight"], shapes[at + "attn.c_proj.bias"] = (6, 6), (6,)
        shapes[at + "mlp.c_fc.weight"], shapes[at + "mlp.c_fc.bias"] = (6, inner), (inner,)
        shapes[at + "mlp.c_proj.weight"], shapes[at + "mlp.c_proj.bias"] = (inner, 6), (6,)
        shapes[at + "attn.bias"] = (1, 1, 5, 5)  # a mask, which nobody needs
    return {prefix + name: np.full(shape, 0.5, dtype) for name, shape in shapes.items()}


def tokenizer(largest: int = 2) -> dict[str, Any]:
    return {"model": {"type": "BPE", "vocab": {"a": 0, "b": largest}, "merges": []}}


def folder(
    path: Path, config: Any = CONFIG, weights: Any = None, words: dict[str, Any] | None = None
) -> str:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    save_file(tensors() if weights is None else weights, path / "model.safetensors")
    if words is not None:
        (path / "tokenizer.json").write_text(json.dumps(words))
    return str(path)


def test_a_sound_folder(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(folder(tmp_path / "m", words=tokenizer()))
    assert checkpoint.name == "m"
    assert list(checkpoint.files) == ["safetensors", "config", "tokenizer"]
    weights = checkpoint.files["safetensors"]
    data = (tmp_path / "m" / "model.safetensors").read_bytes()
    assert weights.sha256() == hashlib.sha256(data).digest()
    assert weights.sha256(10) == hashlib.sha256(data[:10]).digest()
    # Masks are not counted.
    assert checkpoint.parameters == sum(
        one.size for name, one in tensors().items() if not name.endswith(".attn.bias")
    )
    assert checkpoint.length == sum(one.stat().st_size for one in (tmp_path / "m").iterdir())


def test_a_model_without_biases(tmp_path: Path) -> None:
    def bare(name: str) -> bool:
        return name.endswith(".bias") and not name.endswith(".attn.bias")

    some = {name: one for name, one in tensors().items() if not bare(name)}
    assert open_checkpoint(folder(tmp_path / "none", weights=some)).parameters > 0
    # One that has some biases must have them all.
    first = next(name for name in tensors() if bare(name))
    with pytest.raises(CheckpointError, match=r"\.bias"):
        open_checkpoint(folder(tmp_path / "one", weights=some | {first: tensors()[first]}))


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_forms_that_checkpoints_take(tmp_path: Path, dtype: str) -> None:
    prefixed = tensors("transformer.", dtype) | {"lm_head.weight": np.ones((3, 6), dtype)}
    assert "tokenizer" not in open_checkpoint(folder(tmp_path / "m", weights=prefixed)).files
    narrow = {**CONFIG, "n_inner": 7, "n_positions": None, "n_ctx": 5}
    open_checkpoint(folder(tmp_path / "n", narrow, tensors(dtype=dtype, inner=7)))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"n_head": None}, "no n_head"),
        ({"n_embd": None}, "no n_embd"),
        ({"n_layer": None}, "no n_layer"),
        ({"vocab_size": None}, "no vocab_size"),
        ({"n_positions": None}, "no n_positions"),
        ({"n_head": 4}, "can't be shared by 4 heads"),
        ({"n_head": 0}, "n_head is 0"),
        ({"n_layer": -1}, "n_layer is -1"),
        ({"n_layer": 10**30}, "n_layer is 1000"),
        ({"n_layer": 10_000}, "n_layer is 10000"),
        ({"n_layer": True}, "n_layer is true"),
        ({"n_embd": "6"}, 'n_embd is "6"'),
        ({"n_embd": 6.0}, "n_embd is 6.0"),
        ({"model_type": "llama"}, "'llama' model"),
        ({"model_type": ["gptj"]}, "model"),
        ({"model_type": "gptj"}, "rotary_dim is 64; it must be an even number from 2 to the 3"),
        ({"model_type": "gptj", "rotary_dim": None}, "rotary_dim is null"),
        ({"model_type": "gptj", "rotary_dim": True}, "rotary_dim is true"),
        ({"model_type": "gptj", "n_head": 1, "rotary_dim": 5}, "rotary_dim is 5"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ({"tie_word_embeddings": False}, "no tensor 'lm_head.weight'"),
        ({"activation_function": "relu"}, "activation 'relu'"),
        ({"icgpt": []}, "no object"),
        ({"icgpt": {"context": "roll"}}, "stop"),
        ({"vocab_size": 4}, r"shape 3x6; by config.json it must be 4x6"),
        ({"n_layer": 3}, r"no tensor 'h.2.ln_1.weight' and 11 more"),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    with pytest.raises(CheckpointError, match=word):
        open_checkpoint(folder(tmp_path / "m", {**CONFIG, **change}))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"x"', "[" * 100_000, "\x00"])
def test_configurations_that_are_none(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        parse_config(text.encode())


def test_gpt_j(tmp_path: Path) -> None:
    golden = {name: open_checkpoint(str(GOLDEN / name)) for name in GPTJ}
    assert len(golden) >= 5
    assert all(one.config.family == "gptj" for one in golden.values())
    assert {name for name, one in golden.items() if one.config.tied} == {"gptj-tied"}

    source = GOLDEN / "gptj-odd-heads"
    config = json.loads((source / "config.json").read_text())
    good = load_file(source / "model.safetensors")
    # Positions and masks are stored in old checkpoints, and counted by nobody.
    assert golden["gptj-odd-heads"].parameters == sum(one.size for one in good.values())
    half = load_file(GOLDEN / "gptj-half" / "model.safetensors")
    extra = sum(one.size for name, one in half.items() if name.endswith(EXTRA))
    assert golden["gptj-half"].parameters == sum(one.size for one in half.values()) - extra
    for name in good:
        lacking = {key: one for key, one in good.items() if key != name}
        with pytest.raises(CheckpointError, match=f"no tensor '{name}'$"):
            open_checkpoint(folder(tmp_path / "lacking", config, lacking))
    fused = {**config, "n_inner": 38}
    with pytest.raises(CheckpointError, match=r"'h.0.mlp.fc_in.weight' has the shape 37x21"):
        open_checkpoint(folder(tmp_path / "other", fused, good))


def test_a_huge_configuration(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="bytes"):
        open_checkpoint(folder(tmp_path / "m", json.dumps(CONFIG) + " " * (1 << 20)))


def test_weights_that_are_refused(tmp_path: Path) -> None:
    good = tensors()
    lacking = {k: v for k, v in good.items() if k != "h.1.mlp.c_fc.bias"}
    with pytest.raises(CheckpointError, match=r"no tensor 'h.1.mlp.c_fc.bias'$"):
        open_checkpoint(folder(tmp_path / "m", weights=lacking))
    with pytest.raises(CheckpointError, match="has the type I64"):
        open_checkpoint(folder(tmp_path / "m", weights=good | {"ln_f.bias": np.zeros(6, "i8")}))
    head = good | {"lm_head.weight": np.zeros((4, 6), "f4")}
    with pytest.raises(CheckpointError, match="lm_head"):
        open_checkpoint(folder(tmp_path / "m", weights=head))
    good["wpe.weight"][3, 2] = np.nan
    with pytest.raises(CheckpointError, match=r"'wpe.weight' holds a weight"):
        open_checkpoint(folder(tmp_path / "m", weights=good))


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (tokenizer(3), "the id 3, and the model only 3"),
        ({"model": {}}, "no vocabulary"),
        ([], "no vocabulary"),
        ({"model": {"vocab": {"a": "b"}}}, "malformed id"),
        ({"model": {"vocab": {"a": -1}}}, "malformed id"),
        ({"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 3}]}, "the id 3"),
        ({"model": {"vocab": {"a": 0}}, "added_tokens": [3]}, "malformed id"),
    ],
)
def test_tokenizers_that_are_refused(tmp_path: Path, words: Any, word: str) -> None:
    with pytest.raises(CheckpointError, match=word):
        open_checkpoint(folder(tmp_path / "m", words=words))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000])
def test_tokenizers_that_are_none(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="not valid JSON"):
        check_tokenizer(data, 3)


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="doesn't exist"):
        open_checkpoint(str(tmp_path / "none"))
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(CheckpointError, match="is no model"):
        open_checkpoint(str(file))
    for name in ("config.json", "model.safetensors"):
        whole = Path(folder(tmp_path / name))
        (whole / name).unlink()
        with pytest.raises(CheckpointError, match=f"has no {name}"):
            open_checkpoint(str(whole))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    whole = Path(folder(tmp_path / "m"))
    (whole / "model.safetensors").unlink()
    os.mkfifo(whole / "model.safetensors")
    with pytest.raises(CheckpointError, match="is no file"):
        open_checkpoint(str(whole))


def test_the_built_in_model_is_sound() -> None:
    assert "shakespeare-char" in built_in()
    checkpoint = open_checkpoint("shakespeare-char")
    assert checkpoint.config.vocab_size == 65
    assert checkpoint.length < 8 << 20


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


OTHERS = ("family", "tied", "precision", "context", "template")
KEYS = [*CONFIG, "icgpt", "n_inner", "activation_function", "tie_word_embeddings", "rotary_dim"]


def read(parse: Callable[..., Any], *arguments: Any) -> Any:
    """What was read; None for what was refused in few words and with a next step."""
    try:
        return parse(*arguments)
    except CheckpointError as error:
        refused = error
    assert refused.hint
    assert len(refused.message) < 300
    return None


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_configurations_of_noise(changes: dict[str, Any]) -> None:
    for family in ("gpt2", "gptj"):
        whole = {**CONFIG, "model_type": family, "rotary_dim": 2, **changes}
        found = read(parse_config, json.dumps(whole).encode())
        if found is not None:
            assert (found.family, type(found.tied)) in ((family, bool), ("gpt2", bool))
            sizes = [one for key, one in vars(found).items() if key not in OTHERS]
            assert all(type(one) is int and one > 0 for one in sizes)


@settings(deadline=None)
@given(JSON, JSON)
def test_tokenizers_of_noise(vocab: Any, added: Any) -> None:
    data = json.dumps({"model": {"vocab": vocab}, "added_tokens": added}).encode()
    found = read(check_tokenizer, data, 3)
    assert found is None or 0 <= found < 3

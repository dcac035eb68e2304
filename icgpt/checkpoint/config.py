"""config.json of a GPT-2 or GPT-J checkpoint: the keys we need, and the tensors that follow.

The canister checks the same; here it is checked before hundreds of megabytes are sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from icgpt.checkpoint.safetensors import Tensor
from icgpt.errors import CheckpointError, quoted
from icgpt.results import Template
from icgpt.tokens import EOT, PREFIX_TOKENS, SUFFIX_TOKENS

MAX_CONFIG_BYTES: Final = 1 << 20
# The engine's own limits.
MAX_LAYERS: Final = 1024
MAX_WIDTH: Final = 1 << 17
MAX_TOKENS: Final = 1 << 22
FAMILIES: Final = ("gpt2", "gptj")
ACTIVATIONS: Final = ("gelu_new", "gelu", "gelu_pytorch_tanh")
DTYPES: Final = ("F32", "F16", "BF16")
PRECISIONS: Final = ("f32", "int8", "int16")
_CONTEXT_KEYS: Final = ("n_positions", "max_position_embeddings", "n_ctx")
_PREFIX: Final = "transformer."
_ROTARY_DIM: Final = 64  # GPT-J's, where config.json is silent
_INSTRUCT_VOCABULARY: Final = 50_260  # the engine gives models of this size the instruct template


@dataclass(frozen=True)
class Config:
    """The sizes of a model."""

    family: str
    """One of FAMILIES."""
    n_layer: int
    n_head: int
    n_embd: int
    n_ctx: int
    n_inner: int
    vocab_size: int
    tied: bool
    """Whether the head shares the token embedding."""
    precision: str | None
    """How its weights are best held, if config.json says so."""
    context: str
    """What happens when the context is full: "stop" or "slide"."""
    template: Template | None
    """What the engine puts round a prompt."""


def parse_config(data: bytes) -> Config:
    """Reads config.json; CheckpointError says which key is missing or wrong."""
    if len(data) > MAX_CONFIG_BYTES:
        raise CheckpointError(
            f"config.json has {len(data):,} bytes, too many for what it is", _COMPLETE
        )
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"config.json is not valid JSON: {error}", _COMPLETE) from error
    if not isinstance(raw, dict):
        raise CheckpointError("config.json is no JSON object", _COMPLETE)
    family = raw.get("model_type", "gpt2")
    if family not in FAMILIES:
        raise CheckpointError(
            f"config.json is of a {quoted(family)} model",
            "The canister runs GPT-2 (gpt2) and GPT-J (gptj) models.",
        )
    activation = raw.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        raise CheckpointError(
            f"config.json asks for the activation {quoted(activation)}",
            f"Known ones: {', '.join(ACTIVATIONS)}.",
        )
    n_embd = _size(raw, "n_embd", MAX_WIDTH)
    n_head = _size(raw, "n_head", MAX_WIDTH)
    if n_embd % n_head:
        raise CheckpointError(
            f"config.json: n_embd {n_embd} can't be shared by {n_head} heads", _COMPLETE
        )
    context = next((key for key in _CONTEXT_KEYS if raw.get(key) is not None), None)
    if context is None:
        raise CheckpointError("config.json has no n_positions (or n_ctx)", _COMPLETE)
    inner = 4 * n_embd
    if raw.get("n_inner") is not None:
        inner = _size(raw, "n_inner", 4 * MAX_WIDTH)
    if family == "gptj":
        _check_rotary_dim(raw, n_embd, n_head)
    _check_extras(raw.get("icgpt"))
    extras = raw.get("icgpt") or {}
    vocab_size = _size(raw, "vocab_size", MAX_TOKENS)
    return Config(
        family=family,
        n_layer=_size(raw, "n_layer", MAX_LAYERS),
        n_head=n_head,
        n_embd=n_embd,
        n_ctx=_size(raw, context, MAX_TOKENS),
        n_inner=inner,
        vocab_size=vocab_size,
        tied=_tied(raw, family),
        precision=extras.get("precision"),
        context=extras.get("context", "stop"),
        template=_template(extras.get("template"), vocab_size),
    )


_COMPLETE = "Use the config.json that belongs to the model."
_OURS = "Correct it, or leave it out."


def _size(raw: dict[str, Any], key: str, most: int) -> int:
    value = raw.get(key)
    if value is None:
        raise CheckpointError(f"config.json has no {key}", _COMPLETE)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise CheckpointError(
            f"config.json: {key} is {json.dumps(value)[:60]}; it must be a number from 1 to {most}",
            _COMPLETE,
        )
    return value


def _tied(raw: dict[str, Any], family: str) -> bool:
    value = raw.get("tie_word_embeddings")
    if value is None:
        return family == "gpt2"
    if not isinstance(value, bool):
        raise CheckpointError("config.json: tie_word_embeddings must be true or false", _COMPLETE)
    return value


def _check_rotary_dim(raw: dict[str, Any], n_embd: int, n_head: int) -> None:
    """Pairs of dimensions are turned, in each head as many."""
    head = n_embd // n_head
    found = raw.get("rotary_dim", _ROTARY_DIM)
    if found is None and n_head == 1:
        found = n_embd
    sound = isinstance(found, int) and not isinstance(found, bool)
    if not sound or not 2 <= found <= head or found % 2:
        raise CheckpointError(
            f"config.json: rotary_dim is {json.dumps(found)[:60]}; it must be an even number from "
            f"2 to the {head} dimensions of a head",
            _COMPLETE,
        )


def _check_extras(extras: Any) -> None:
    """The keys of our own under "icgpt"."""
    if extras is None:
        return
    if not isinstance(extras, dict):
        raise CheckpointError('config.json: "icgpt" is no object', _OURS)
    if extras.get("context", "stop") not in ("stop", "slide"):
        raise CheckpointError('config.json: icgpt.context must be "stop" or "slide"', _OURS)
    if extras.get("precision", PRECISIONS[0]) not in PRECISIONS:
        raise CheckpointError(
            f"config.json: icgpt.precision must be one of {', '.join(PRECISIONS)}", _OURS
        )


def _template(own: Any, vocab_size: int) -> Template | None:
    """The template that config.json names, or the one that the size of the vocabulary means."""
    if own is None:
        if vocab_size != _INSTRUCT_VOCABULARY:
            return None
        return Template(list(PREFIX_TOKENS), list(SUFFIX_TOKENS), [EOT])
    if not isinstance(own, dict):
        raise CheckpointError("config.json: icgpt.template is no object", _OURS)
    parts = [own.get(name, []) for name in ("prefix", "suffix", "stop")]
    for one in parts:
        ids = one if isinstance(one, list) else [None]
        if not all(type(each) is int and 0 <= each < vocab_size for each in ids):
            raise CheckpointError(
                "config.json: icgpt.template must have lists of ids below vocab_size", _OURS
            )
    return Template(*parts)


def expected_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a model of these sizes needs."""
    wide = config.n_embd
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, wide),
        "ln_f.weight": (wide,),
        "ln_f.bias": (wide,),
    }
    if config.family == "gpt2":
        shapes["wpe.weight"] = (config.n_ctx, wide)
    block = _gpt2_block(config) if config.family == "gpt2" else _gptj_block(config)
    for layer in range(config.n_layer):
        shapes.update({f"h.{layer}.{name}": shape for name, shape in block.items()})
    return shapes


def _gpt2_block(config: Config) -> dict[str, tuple[int, ...]]:
    """Matrices lie as [inputs][outputs]."""
    wide, inner = config.n_embd, config.n_inner
    return {
        "ln_1.weight": (wide,),
        "ln_1.bias": (wide,),
        "attn.c_attn.weight": (wide, 3 * wide),
        "attn.c_attn.bias": (3 * wide,),
        "attn.c_proj.weight": (wide, wide),
        "attn.c_proj.bias": (wide,),
        "ln_2.weight": (wide,),
        "ln_2.bias": (wide,),
        "mlp.c_fc.weight": (wide, inner),
        "mlp.c_fc.bias": (inner,),
        "mlp.c_proj.weight": (inner, wide),
        "mlp.c_proj.bias": (wide,),
    }


def _gptj_block(config: Config) -> dict[str, tuple[int, ...]]:
    """Matrices lie as [outputs][inputs]."""
    wide, inner = config.n_embd, config.n_inner
    return {
        "ln_1.weight": (wide,),
        "ln_1.bias": (wide,),
        **{f"attn.{name}_proj.weight": (wide, wide) for name in ("q", "k", "v", "out")},
        "mlp.fc_in.weight": (inner, wide),
        "mlp.fc_in.bias": (inner,),
        "mlp.fc_out.weight": (wide, inner),
        "mlp.fc_out.bias": (wide,),
    }


def check_tensors(config: Config, tensors: dict[str, Tensor]) -> list[Tensor]:
    """The tensors that the model is made of; CheckpointError when one is missing or misshapen."""
    prefix = _PREFIX if f"{_PREFIX}wte.weight" in tensors else ""
    used = []
    missing = []
    wanted = {prefix + name: shape for name, shape in expected_shapes(config).items()}
    if not config.tied or "lm_head.weight" in tensors:
        wanted["lm_head.weight"] = (config.vocab_size, config.n_embd)
    if config.family == "gptj":
        wanted["lm_head.bias"] = (config.vocab_size,)
    # nanoGPT trains models without biases; one that has some must have them all.
    some = any(name in tensors for name in wanted if name.endswith(".bias"))
    biased = some or config.family == "gptj"
    for name, shape in wanted.items():
        tensor = tensors.get(name)
        if tensor is None:
            if biased or not name.endswith(".bias"):
                missing.append(name)
            continue
        if tensor.shape != shape:
            raise CheckpointError(
                f"tensor '{name}' has the shape {_show(tensor.shape)}; by config.json it must be "
                f"{_show(shape)}",
                "config.json and model.safetensors must belong to the same model.",
            )
        if tensor.dtype not in DTYPES:
            raise CheckpointError(
                f"tensor '{name}' has the type {tensor.dtype}", f"Known: {', '.join(DTYPES)}."
            )
        used.append(tensor)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(
            f"the checkpoint has no tensor '{missing[0]}'{more}",
            "config.json and model.safetensors must belong to the same model.",
        )
    return used


def _show(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape) or "a single number"

"""A state dict out of what torch.save wrote, and the model that it belongs to.

Taken as it is, from under "model", "state_dict" and the like, or out of a whole model; what
torch.compile and parallel training put before names is dropped. Of nanoGPT's form are checkpoints
whose linear layers lie as [outputs][inputs], where transformers' GPT-2 has [inputs][outputs].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from icgpt.checkpoint.modules import parameters
from icgpt.checkpoint.pickles import Foreign, PickledTensor
from icgpt.errors import CheckpointError, UsageError

_WRAPPERS: Final = ("model", "state_dict", "model_state_dict", "module", "net", "weights")
_PREFIXES: Final = ("_orig_mod.", "module.", "_forward_module.", "model.")
# What a classifier's layer over the labels is called; its weight lies as [labels][wide].
LABEL_HEADS: Final = ("score", "classifier", "classification_head")
_HEADS: Final = tuple(f"{name}." for name in ("lm_head", *LABEL_HEADS))
# What a configuration of transformers tells, beside the sizes.
_TOLD: Final = {
    "activation_function": str,
    "layer_norm_epsilon": float,
    "n_inner": int,
    "n_positions": int,
    "rotary_dim": int,
    "scale_attn_weights": bool,
    "scale_attn_by_inverse_layer_idx": bool,
    "eos_token_id": int,
}
_LINEAR: Final = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_LAYER: Final = re.compile(r"(?:transformer\.)?h\.(\d{1,6})\.")
_SAVE: Final = "Save its weights alone: torch.save(model.state_dict(), FILE)."


@dataclass(frozen=True)
class Shape:
    """A published model's sizes, as far as its weights don't show them all."""

    family: str
    n_layer: int
    n_head: int
    n_embd: int
    hub_id: str


MODEL_SHAPES: Final = {
    "distilgpt2": Shape("gpt2", 6, 12, 768, "distilbert/distilgpt2"),
    "gpt2": Shape("gpt2", 12, 12, 768, "openai-community/gpt2"),
    "gpt2-medium": Shape("gpt2", 24, 16, 1024, "openai-community/gpt2-medium"),
    "gpt2-large": Shape("gpt2", 36, 20, 1280, "openai-community/gpt2-large"),
    "gpt2-xl": Shape("gpt2", 48, 25, 1600, "openai-community/gpt2-xl"),
    "gpt-j-6b": Shape("gptj", 28, 16, 4096, "EleutherAI/gpt-j-6b"),
}


class UntoldError(UsageError):
    """Weights that don't tell their model's sizes, and nobody said what model they are of."""

    kind = "untold"

    def __init__(self, fitting: str | None) -> None:
        which = f" It has the sizes of {fitting}." if fitting else ""
        super().__init__(
            "these weights don't say how many attention heads the model has",
            f"Name the model that they are of: --model-name {fitting or 'gpt2'}, or put its "
            f"config.json beside them.{which}",
        )


class Shaped(Protocol):
    """A tensor, as far as it matters here."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""


S = TypeVar("S", bound=Shaped)


@dataclass(frozen=True)
class StateDict(Generic[S]):
    """Tensors by name, and what the file says of the model."""

    tensors: dict[str, S]
    said: dict[str, Any]
    """Sizes under nanoGPT's names (n_layer, n_head, n_embd, block_size …), where they are told."""
    was_turned: bool = False
    """Whether matrices have been brought to [inputs][outputs] since."""

    @property
    def linear(self) -> bool:
        """Whether matrices lie as [outputs][inputs]."""
        first = self._shape("h.0.attn.c_attn.weight")
        return len(first) == 2 and first[0] == 3 * first[1]

    @property
    def vocabulary(self) -> int:
        """Number of tokens; 0 where there is no embedding."""
        return (*self._shape("wte.weight"), 0)[0]

    @property
    def wide(self) -> int:
        """Width of the stream; 0 where there is no embedding."""
        return (*self._shape("wte.weight"), 0, 0)[1]

    def _shape(self, name: str) -> tuple[int, ...]:
        for prefix in ("transformer.", ""):
            if (tensor := self.tensors.get(prefix + name)) is not None:
                return tensor.shape
        return ()

    def turned(self, name: str) -> bool:
        """Whether a tensor has to be transposed."""
        return self.linear and name.endswith(tuple(f"{layer}.weight" for layer in _LINEAR))

    def config(self, model_name: str | None) -> dict[str, Any]:
        """config.json of the model, from what the file tells, or by a published model's name."""
        if not self.wide:
            raise CheckpointError(
                "the weights have no token embedding (wte.weight), as GPT-2 and GPT-J have",
                "Models of other kinds can't be run; save one under the names of nanoGPT or of "
                "Hugging Face transformers.",
            )
        told = self._told()
        if model_name is None and {"n_layer", "n_head", "n_embd"} <= told.keys():
            return self._config(self._family(), told["n_layer"], told["n_head"], told["n_embd"])
        if model_name is None:
            fitting = [name for name, one in MODEL_SHAPES.items() if self._fits(one)]
            raise UntoldError(fitting[0] if fitting else None)
        shape = model_shape(model_name)
        if not self._fits(shape):
            layers, wide = self._layers(), self.wide
            raise CheckpointError(
                f"the weights are of {layers} layers, {wide} wide; {model_name} has "
                f"{shape.n_layer}, {shape.n_embd} wide",
                f"Known names: {', '.join(MODEL_SHAPES)}. Any other model needs its config.json.",
            )
        return self._config(shape.family, shape.n_layer, shape.n_head, shape.n_embd)

    def _told(self) -> dict[str, int]:
        return {key: value for key, value in self.said.items() if type(value) is int}

    def _family(self) -> str:
        gptj = any(name.endswith("attn.q_proj.weight") for name in self.tensors)
        return "gptj" if gptj else "gpt2"

    def _fits(self, shape: Shape) -> bool:
        mine = (self._family(), self._layers(), self.wide)
        return mine == (shape.family, shape.n_layer, shape.n_embd)

    def _layers(self) -> int:
        numbers = [int(found[1]) for name in self.tensors if (found := _LAYER.match(name))]
        return max(numbers, default=-1) + 1

    def _config(self, family: str, n_layer: int, n_head: int, n_embd: int) -> dict[str, Any]:
        nano = self.linear or self.was_turned
        positions = self._shape("wpe.weight")
        config: dict[str, Any] = {
            "model_type": family,
            # nanoGPT's own layer is exact; OpenAI's models were trained with the approximation.
            "activation_function": "gelu" if nano else "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "n_layer": n_layer,
            "n_head": n_head,
            "n_embd": n_embd,
            "n_positions": positions[0] if positions else self._told().get("block_size", 2048),
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": family == "gpt2",
        }
        if family == "gptj":
            config["rotary_dim"] = 64
        if nano:
            config["icgpt"] = {"context": "slide"}  # nanoGPT drops what is too long, and goes on
        known = ((key, self.said.get(key), kind) for key, kind in _TOLD.items())
        config |= {key: value for key, value, kind in known if type(value) is kind}
        labels = self.said.get("id2label")
        if isinstance(labels, dict) and all(isinstance(one, str) for one in labels.values()):
            config["id2label"] = {str(key): one for key, one in labels.items()}
        return config


def is_published(name: str) -> bool:
    """Whether `model_shape` knows a model by this name."""
    return _short(name) in MODEL_SHAPES


def model_shape(name: str) -> Shape:
    """A published model's sizes by its name."""
    if not is_published(name):
        raise UsageError(
            f"there is no model name '{name}'",
            f"Names: {', '.join(MODEL_SHAPES)}; or a folder or an id of the hub with the model's "
            "config.json.",
        )
    return MODEL_SHAPES[_short(name)]


def _short(name: str) -> str:
    return name.lower().rsplit("/", 1)[-1]


def find_state_dict(content: Any, name: str) -> StateDict[PickledTensor]:
    """The state dict in what a file holds; CheckpointError when there is none."""
    if not isinstance(content, dict | Foreign):
        raise CheckpointError(f"{name} holds no state dict", _SAVE)
    found = content
    for _ in range(3):  # wrapped in one another
        if isinstance(found, Foreign):
            break
        if any(isinstance(one, PickledTensor) for one in found.values()) and "model" not in found:
            break
        inner = next((found[key] for key in _WRAPPERS if key in found), None)
        if not isinstance(inner, dict | Foreign):
            break
        found = inner
    said = _said(content.state if isinstance(content, Foreign) else content)
    if isinstance(found, Foreign):
        model = found
        found = parameters(model)
        if not found:
            raise _whole_model(model, name)
        said = said or _said(model.state)
    tensors = {
        _bare(key): value
        for key, value in found.items()
        if isinstance(key, str) and isinstance(value, PickledTensor)
    }
    if not tensors:
        raise CheckpointError(f"{name} holds no weights", _SAVE)
    return StateDict(_named_alike(tensors), said)


def _bare(name: str) -> str:
    while (prefix := next((p for p in _PREFIXES if name.startswith(p)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def _named_alike(tensors: dict[str, PickledTensor]) -> dict[str, PickledTensor]:
    """With "transformer." before all of the trunk's names, or before none."""
    prefix = "transformer."
    if f"{prefix}wte.weight" not in tensors:
        return tensors
    return {name: one for name, one in tensors.items() if name.startswith((prefix, *_HEADS))}


def _said(content: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes, from nanoGPT's `model_args`, or a configuration object or dict beside the weights."""
    for key in ("model_args", "config", "model_config", "args"):
        value = content.get(key)
        if isinstance(value, Foreign):
            value = value.state
        if isinstance(value, dict) and "n_layer" in value:
            return {str(name): one for name, one in value.items()}
    return {}


def _whole_model(content: Foreign, name: str) -> CheckpointError:
    return CheckpointError(
        f"{name} holds a whole model ({content.kind}), not its weights; reading it runs code "
        "from the file",
        "If you trust whoever made it, and have PyTorch: --trust-pickle. "
        "Better: torch.save(model.state_dict(), FILE).",
    )

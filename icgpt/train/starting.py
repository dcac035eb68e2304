"""A model to train further: sizes, vocabulary and weights out of a checkpoint.

The checkpoint is what `open_checkpoint` found: a built-in model, a folder, a file of PyTorch, an id
of the hub. It must be a GPT-2 with a tied head, which is all that is trained here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from icgpt.checkpoint import Checkpoint
from icgpt.errors import CheckpointError, UsageError
from icgpt.train.presets import GELU, GELU_NEW, Settings
from icgpt.train.vocabulary import Vocabulary, of_model

SIZES: Final = ("n_layer", "n_head", "n_embd")
_PREFIX: Final = "transformer."
_ACTIVATIONS: Final = {
    "gelu_new": GELU_NEW,
    "gelu_pytorch_tanh": GELU_NEW,
    "gelu": GELU,
}


@dataclass(frozen=True)
class Start:
    """Where a run begins, if not from scratch."""

    checkpoint: Checkpoint
    vocabulary: Vocabulary
    activation: str

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.checkpoint.name

    def settings(self, s: Settings, wanted: dict[str, Any]) -> Settings:
        """The run's settings with the model's sizes; UsageError where others are `wanted`."""
        config = self.checkpoint.config
        fixed = {name: getattr(config, name) for name in SIZES} | {"activation": self.activation}
        for name, found in fixed.items():
            if wanted.get(name) not in (None, found):
                raise UsageError(
                    f"{self.name} has {name} {found}, not {wanted[name]}",
                    "The form of a model that is trained further can't be changed.",
                )
        n_ctx = wanted.get("n_ctx") or config.n_ctx
        if n_ctx > config.n_ctx:
            raise UsageError(
                f"{self.name} sees {config.n_ctx} tokens at once, not {n_ctx}",
                "Give a --block-size of at most that.",
            )
        return s.changed(**fixed, n_ctx=n_ctx)

    def put_into(self, model: Any) -> None:
        """Gives a model of these sizes the checkpoint's weights."""
        from safetensors.torch import load_file

        there = {
            name.removeprefix(_PREFIX): one
            for name, one in load_file(self.checkpoint.files["safetensors"].path).items()
        }
        state = model.state_dict()
        for name, old in state.items():
            found = there.get(name.removeprefix(_PREFIX))
            if found is None:  # a model without biases, as nanoGPT can train them
                old.zero_()
            else:
                old.copy_(found[: old.shape[0]])  # of positions, no more than are trained


def open_start(checkpoint: Checkpoint) -> Start:
    """A checkpoint as a start; CheckpointError where it can't be one."""
    config = checkpoint.config
    raw = json.loads(checkpoint.files["config"].path.read_bytes())
    activation = _ACTIVATIONS.get(raw.get("activation_function", GELU_NEW))
    plain = config.tied and config.n_inner == 4 * config.n_embd and activation is not None
    if config.family != "gpt2" or not plain:
        raise CheckpointError(
            f"{checkpoint.name} can't be trained further",
            "Only GPT-2 models of the usual form can: a tied head, an MLP four times as wide as "
            "the model.",
        )
    if "tokenizer" not in checkpoint.files:
        raise CheckpointError(
            f"{checkpoint.name} has no tokenizer.json", "Put it beside the weights."
        )
    content = checkpoint.files["tokenizer"].path.read_bytes()
    return Start(checkpoint, of_model(content, config.vocab_size), activation or GELU_NEW)

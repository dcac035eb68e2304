"""Write the golden files of GPT-J: what transformers' GPTJForCausalLM computes for random models.

Folders and files are those of make.py, whose words on how to run it hold here too:

    python tests/golden/make_gptj.py

Between them the models turn the whole head and two dimensions of it, have heads of even and odd
sizes, all three types of weights, names with and without prefix, a head of their own and a shared
one, and what old checkpoints store beside the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from random_models import Family, Recipe, causal_mask, make_all
from transformers import GPTJConfig, GPTJForCausalLM

# name -> (configuration, how it is stored, length of the prompt)
MODELS: dict[str, Recipe] = {
    "gptj-whole-head": (
        {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 24, "vocab_size": 33,
         "rotary_dim": 8, "n_inner": None, "tie_word_embeddings": False},
        {"dtype": torch.float32, "prefix": True},
        6,
    ),
    "gptj-odd-heads": (
        {"n_layer": 2, "n_head": 3, "n_embd": 21, "n_positions": 20, "vocab_size": 40,
         "rotary_dim": 4, "n_inner": 37, "tie_word_embeddings": False},
        {"dtype": torch.float32, "prefix": False},
        5,
    ),
    "gptj-half": (
        {"n_layer": 3, "n_head": 2, "n_embd": 24, "n_positions": 40, "vocab_size": 50,
         "rotary_dim": 2, "tie_word_embeddings": False},
        {"dtype": torch.float16, "prefix": True, "masks": True},
        8,
    ),
    "gptj-tied": (
        {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 16, "vocab_size": 61,
         "rotary_dim": 6, "tie_word_embeddings": True, "activation_function": "gelu",
         "layer_norm_epsilon": 1e-3},
        {"dtype": torch.bfloat16, "prefix": True},
        1,
    ),
    "gptj-one-head": (
        {"n_layer": 1, "n_head": 1, "n_embd": 40, "n_positions": 80, "vocab_size": 41,
         "rotary_dim": None, "tie_word_embeddings": False},
        {"dtype": torch.bfloat16, "prefix": False},
        70,
    ),
}  # fmt: skip


def spread(key: str, shape: tuple[int, ...]) -> float:
    """The standard deviation of a weight."""
    if "wte" in key or "lm_head" in key:
        return 0.6
    # nn.Linear stores [outputs][inputs].
    return float(2.0 / np.sqrt(shape[1]))


def extras(model: Any, layer: int) -> dict[str, torch.Tensor]:
    """Masks and positions of a layer."""
    at = f"transformer.h.{layer}.attn."
    positions = model.transformer.h[layer].attn.embed_positions
    return {
        at + "bias": causal_mask(model.config.n_positions),
        at + "masked_bias": torch.tensor(-1e9),
        at + "embed_positions": positions.contiguous().clone(),
    }


GPTJ = Family("gptj", GPTJConfig, GPTJForCausalLM, spread, extras)


if __name__ == "__main__":
    make_all(GPTJ, MODELS.items())

"""Write the golden files: what Hugging Face transformers computes for small random GPT-2 models.

Tests compare with these files, so that they need no torch. To make them anew (any torch that
transformers 4.55 works with will do; the committed ones are from torch 2.15):

    pip install "transformers==4.55.*" torch numpy safetensors
    python tests/golden/make.py            # the small models
    python tests/golden/make.py 124m       # GPT-2 124M's shape, weights from recipe.py (2 GB)

A small model's folder holds model.safetensors, config.json and expected.json:

    prompt   ids
    logits   for each position of the prompt, the logits of the token that follows
    greedy   likeliest ids after the prompt, to the edge of the context: the last one is chosen when
             the context is full
    slide    likeliest ids after the prompt, when the context slides as icgpt does: whenever it is
             full, the last n_ctx - n_ctx // 4 tokens become positions 0, 1, ...

`gpt2-124m.json` holds prompt, greedy, and for some positions a thousand of the logits.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).parent))
import recipe
from random_models import HERE, Family, Recipe, causal_mask, likeliest, logits, make_all, rounded

# name -> (configuration, how it is stored, length of the prompt)
MODELS: dict[str, Recipe] = {
    "odd-heads": (
        {"n_layer": 2, "n_head": 3, "n_embd": 15, "n_positions": 24, "vocab_size": 31},
        {"dtype": torch.float32, "prefix": True},
        6,
    ),
    "half": (
        {"n_layer": 3, "n_head": 2, "n_embd": 22, "n_positions": 40, "vocab_size": 50},
        {"dtype": torch.float16, "prefix": False},
        8,
    ),
    "untied": (
        {"n_layer": 2, "n_head": 4, "n_embd": 24, "n_positions": 64, "vocab_size": 61,
         "tie_word_embeddings": False},
        {"dtype": torch.bfloat16, "prefix": True},
        1,
    ),
    "three-tokens": (
        {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 32, "vocab_size": 3},
        {"dtype": torch.float32, "prefix": True},
        4,
    ),
    "gelu": (
        {"n_layer": 2, "n_head": 4, "n_embd": 20, "n_positions": 16, "vocab_size": 40,
         "n_inner": 37, "activation_function": "gelu", "layer_norm_epsilon": 1e-3},
        {"dtype": torch.float32, "prefix": False},
        5,
    ),
    "no-bias": (
        {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 16, "vocab_size": 65,
         "activation_function": "gelu"},
        {"dtype": torch.float16, "prefix": True, "biases": False},
        3,
    ),
    "two-blocks": (
        {"n_layer": 1, "n_head": 1, "n_embd": 72, "n_positions": 80, "vocab_size": 72},
        {"dtype": torch.bfloat16, "prefix": False},
        70,
    ),
    "masked": (
        {"n_layer": 3, "n_head": 1, "n_embd": 13, "n_positions": 20, "vocab_size": 29,
         "scale_attn_by_inverse_layer_idx": True},
        {"dtype": torch.float32, "prefix": False, "masks": True},
        7,
    ),
}  # fmt: skip


def spread(key: str, shape: tuple[int, ...]) -> float:
    """The standard deviation of a weight."""
    if "wte" in key or "lm_head" in key:
        return 0.4
    return 1.0 if "wpe" in key else float(2.5 / np.sqrt(shape[0]))


def extras(model: Any, layer: int) -> dict[str, torch.Tensor]:
    """Masks of a layer."""
    at = f"h.{layer}.attn."
    mask = causal_mask(model.config.n_positions)
    return {at + "bias": mask, at + "masked_bias": torch.tensor(-1e4)}


GPT2 = Family("gpt2", GPT2Config, GPT2LMHeadModel, spread, extras)


def large() -> None:
    with tempfile.TemporaryDirectory() as folder:
        recipe.write(Path(folder))
        model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
    rng = np.random.default_rng(recipe.SEED)
    prompt = [int(i) for i in rng.integers(0, 50257, 12)]
    rows = logits(model, prompt)
    indices = sorted(int(i) for i in rng.choice(50257, 1000, replace=False))
    ids = list(prompt)
    for _ in range(12):
        ids.append(likeliest(logits(model, ids)[-1]))
    expected = {
        "prompt": prompt,
        "greedy": ids[len(prompt) :],
        "indices": indices,
        "positions": [
            {
                "position": at,
                "argmax": int(rows[at].argmax()),
                "highest": round(float(rows[at].max()), 6),
                "logits": rounded(rows[at][indices]),
            }
            for at in (0, 5, 11)
        ],
    }
    (HERE / "gpt2-124m.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["124m"]:
        large()
    else:
        make_all(GPT2, MODELS.items())

"""Write the golden files of GPT-J: what transformers' GPTJForCausalLM computes for random models.

Folders and files are those of make.py, whose words on how to run it hold here too:

    python tests/golden/make_gptj.py

Between them the models turn the whole head and two dimensions of it, have heads of even and odd
sizes, all three types of weights, names with and without prefix, a head of their own and a shared
one, and what old checkpoints store beside the weights.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make import BASE, HERE, UnclearError, greedy, logits, rounded, slide
from safetensors.torch import save_file
from transformers import GPTJConfig, GPTJForCausalLM

# name -> (configuration, how it is stored, length of the prompt)
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
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


def randomise(model: GPTJForCausalLM, seed: list[int], how: dict[str, Any]) -> None:
    """Give every weight a seeded value that the stored type can hold exactly."""
    rng = np.random.default_rng(seed)
    for key, weight in sorted(model.named_parameters()):
        values = rng.standard_normal(tuple(weight.shape))
        if ".ln_" in key and key.endswith("weight"):
            values = 1 + 0.2 * values
        elif key.endswith("bias"):
            values *= 0.2
        elif "wte" in key or "lm_head" in key:
            values *= 0.6
        else:
            # nn.Linear stores [outputs][inputs].
            values *= 2.0 / np.sqrt(weight.shape[1])
        stored = torch.tensor(values, dtype=torch.float32).to(how["dtype"])
        weight.data.copy_(stored.to(torch.float32))


def save(model: GPTJForCausalLM, config: dict[str, Any], how: dict[str, Any], folder: Path) -> None:
    """Write the model as some checkpoint in the wild looks."""
    tensors = {}
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        name = key if how["prefix"] else key.removeprefix("transformer.")
        tensors[name] = weight.to(how["dtype"]).contiguous().clone()
    if how.get("masks"):
        n = config["n_positions"]
        for layer in range(config["n_layer"]):
            at = f"transformer.h.{layer}.attn."
            tensors[at + "bias"] = torch.ones(1, 1, n, n, dtype=torch.bool).tril()
            tensors[at + "masked_bias"] = torch.tensor(-1e9)
            positions = model.transformer.h[layer].attn.embed_positions
            tensors[at + "embed_positions"] = positions.contiguous().clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "gptj"} | config) + "\n")


def small(name: str, attempt: int) -> None:
    """Make a model from one seed; UnclearError when it would make a poor test."""
    config, how, length = MODELS[name]
    seed = [zlib.crc32(name.encode()), attempt]
    model = GPTJForCausalLM(GPTJConfig(**BASE, **config)).eval()
    randomise(model, seed, how)
    rng = np.random.default_rng([*seed, 1])
    prompt = [int(i) for i in rng.integers(0, config["vocab_size"], length)]
    expected = {
        "prompt": prompt,
        "greedy": greedy(model, prompt),
        "slide": slide(model, prompt, 2 * config["n_positions"]),
        "logits": [rounded(row) for row in logits(model, prompt)],
    }
    different = len(set(expected["greedy"]))
    if different < min(8, len(expected["greedy"]) // 2):
        raise UnclearError("always the same ids")
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    save(model, config, how, folder)
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    print(f"{name}: seed {attempt}, {different} different ids of {len(expected['greedy'])}")


def small_until_clear(name: str) -> None:
    """Try seeds until one makes a good test."""
    for attempt in range(100):
        try:
            return small(name, attempt)
        except UnclearError:
            continue
    raise SystemExit(f"{name}: no seed makes a good test")


if __name__ == "__main__":
    for each in MODELS:
        small_until_clear(each)

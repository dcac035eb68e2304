"""Small random models of any family, and what transformers computes for them: the golden folders.

`make.py` says what is in a folder. A family says how its weights are spread and what old
checkpoints of it store beside them; the rest is the same for all.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
# A likeliest id is worth testing only where the second likeliest is further away than rounding.
MARGIN = 3e-4

# The default attention (SDPA) of transformers 4.55 ignores scale_attn_by_inverse_layer_idx.
BASE = {
    "attn_implementation": "eager",
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "eos_token_id": None,
    "bos_token_id": None,
}

# A configuration, how it is stored, and the length of the prompt.
Recipe = tuple[dict[str, Any], dict[str, Any], int]


class UnclearError(Exception):
    """These weights make a poor test: two logits too close, or always the same id."""


@dataclass(frozen=True)
class Family:
    """A kind of model."""

    model_type: str
    config: type[Any]
    model: type[Any]
    spread: Callable[[str, tuple[int, ...]], float]
    """The standard deviation of an embedding or a matrix, by its name and shape."""
    extras: Callable[[Any, int], dict[str, torch.Tensor]]
    """What old checkpoints store of a layer of a model beside its weights."""


def randomise(family: Family, model: Any, seed: list[int], how: dict[str, Any]) -> None:
    """Give every weight a seeded value that the stored type can hold exactly."""
    rng = np.random.default_rng(seed)
    for key, weight in sorted(model.named_parameters()):
        values = rng.standard_normal(tuple(weight.shape))
        if ".ln_" in key and key.endswith("weight"):
            values = 1 + 0.2 * values
        elif key.endswith("bias"):
            values *= 0.2 if how.get("biases", True) else 0
        else:
            values *= family.spread(key, tuple(weight.shape))
        stored = torch.tensor(values, dtype=torch.float32).to(how["dtype"])
        weight.data.copy_(stored.to(torch.float32))


def save(
    family: Family, model: Any, config: dict[str, Any], how: dict[str, Any], folder: Path
) -> None:
    """Write the model as some checkpoint in the wild looks."""
    tensors = {}
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight" and config.get("tie_word_embeddings", True):
            continue
        if key.endswith(".bias") and not how.get("biases", True):
            continue
        name = key if how["prefix"] else key.removeprefix("transformer.")
        tensors[name] = weight.to(how["dtype"]).contiguous().clone()
    if how.get("masks"):
        for layer in range(config["n_layer"]):
            tensors |= family.extras(model, layer)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {"model_type": family.model_type} | config
    (folder / "config.json").write_text(json.dumps(settings) + "\n")


def causal_mask(n: int) -> torch.Tensor:
    """Which of `n` positions each one sees, as old checkpoints store it."""
    return torch.ones(1, 1, n, n, dtype=torch.bool).tril()


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits after each of the ids: (positions, vocabulary), without a cache."""
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([ids]), use_cache=False).logits[0]
    return found


def likeliest(row: torch.Tensor) -> int:
    """The id of the highest logit, which must be clearly the highest."""
    top = row.topk(2)
    margin = float(top.values[0] - top.values[1])
    if margin < MARGIN:
        raise UnclearError(f"two ids lie within {margin}")
    return int(top.indices[0])


def greedy(model: Any, prompt: list[int]) -> list[int]:
    """Likeliest ids to the edge of the context."""
    ids = list(prompt)
    while len(ids) <= model.config.n_positions:
        ids.append(likeliest(logits(model, ids)[-1]))
    return ids[len(prompt) :]


def slide(model: Any, prompt: list[int], count: int) -> list[int]:
    """Likeliest ids in a context that slides."""
    n_ctx = model.config.n_positions
    ids, window = list(prompt), list(prompt)
    for _ in range(count):
        token = likeliest(logits(model, window)[-1])
        ids.append(token)
        window = [*window, token] if len(window) < n_ctx else ids[-(n_ctx - n_ctx // 4) :]
    return ids[len(prompt) :]


def rounded(row: torch.Tensor) -> list[float]:
    """Six digits are enough to compare with."""
    return [round(float(value), 6) for value in row]


def small(family: Family, name: str, recipe: Recipe, attempt: int) -> None:
    """Make a model from one seed; UnclearError when it would make a poor test."""
    config, how, length = recipe
    seed = [zlib.crc32(name.encode()), attempt]
    model = family.model(family.config(**BASE, **config)).eval()
    randomise(family, model, seed, how)
    rng = np.random.default_rng([*seed, 1])
    prompt = [int(i) for i in rng.integers(0, config["vocab_size"], length)]
    expected = {
        "prompt": prompt,
        "greedy": greedy(model, prompt),
        "slide": slide(model, prompt, 2 * config["n_positions"]),
        "logits": [rounded(row) for row in logits(model, prompt)],
    }
    different = len(set(expected["greedy"]))
    if different < min(config["vocab_size"], 8, len(expected["greedy"]) // 2):
        raise UnclearError("always the same ids")
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    save(family, model, config, how, folder)
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    print(f"{name}: seed {attempt}, {different} different ids of {len(expected['greedy'])}")


def small_until_clear(family: Family, name: str, recipe: Recipe) -> None:
    """Try seeds until one makes a good test."""
    for attempt in range(100):
        try:
            return small(family, name, recipe, attempt)
        except UnclearError:
            continue
    raise SystemExit(f"{name}: no seed makes a good test")


def make_all(family: Family, models: Iterable[tuple[str, Recipe]]) -> None:
    """Write the folders of these models."""
    for name, recipe in models:
        small_until_clear(family, name, recipe)

"""GPT-2 in numpy and float64, straight from the paper's formulas: what the tests compare with.

Reads a model folder (model.safetensors, config.json). No cache, no batches, no cleverness.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Array = NDArray[np.float64]


class Reference:
    """A model folder that can be asked for logits."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_bytes())
        self.weights: dict[str, Array] = {
            name.removeprefix("transformer."): tensor.astype(np.float64)
            for name, tensor in load_file(folder / "model.safetensors").items()
        }

    def logits(self, ids: list[int]) -> Array:
        """Ids [T] -> logits [T, V]; the output matrix is the token embedding."""
        w = self.weights
        x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]
        for layer in range(self.config["n_layer"]):
            name = f"h.{layer}."
            x = x + self._attention(self._norm(x, name + "ln_1"), name + "attn.")
            inner = self._linear(self._norm(x, name + "ln_2"), name + "mlp.c_fc")
            inner = self._gelu(inner)
            x = x + self._linear(inner, name + "mlp.c_proj")
        return self._norm(x, "ln_f") @ w["wte.weight"].T

    def loss(self, ids: list[int]) -> float:
        """Mean nats per token of ids[1:], each given all before it."""
        logits = self.logits(ids[:-1])
        top = logits.max(axis=1)
        norm = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        return float(np.mean(norm - logits[np.arange(len(ids) - 1), ids[1:]]))

    def _gelu(self, x: Array) -> Array:
        if self.config["activation_function"] == "gelu":
            return 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=1, keepdims=True)
        spread = np.sqrt(x.var(axis=1, keepdims=True) + self.config["layer_norm_epsilon"])
        return centred / spread * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def _attention(self, x: Array, name: str) -> Array:
        t, c = x.shape
        heads = self.config["n_head"]
        q, k, v = (
            part.reshape(t, heads, c // heads).transpose(1, 0, 2)  # [H, T, D]
            for part in np.split(self._linear(x, name + "c_attn"), 3, axis=1)
        )
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(c // heads)
        scores = np.where(np.tril(np.ones((t, t), dtype=bool)), scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        return self._linear((shares @ v).transpose(1, 0, 2).reshape(t, c), name + "c_proj")

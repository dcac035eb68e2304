"""Seeded random weights in GPT-2's shapes, the same on every machine.

The files are large (498 MB for 124M), so the repository holds this recipe instead of the weights.
It needs numpy alone. Every tensor has a generator of its own, seeded by (SEED, CRC-32 of its name).
A weight is the sum of the four 16-bit parts of one raw PCG64 output, brought to mean 0 and to the
wanted standard deviation: close to a normal distribution, and unlike numpy's own normals promised
to be the same in every version of numpy. 124M is written as f32, the larger shapes as f16.

    python tests/golden/recipe.py FOLDER [SHAPE]      # writes model.safetensors and config.json
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SEED = 124
CONFIG: dict[str, Any] = {
    "model_type": "gpt2",
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 768,
    "n_positions": 1024,
    "vocab_size": 50257,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "eos_token_id": 50256,
}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2-124m": CONFIG,
    "gpt2-medium": CONFIG | {"n_layer": 24, "n_head": 16, "n_embd": 1024},
    "gpt2-large": CONFIG | {"n_layer": 36, "n_head": 20, "n_embd": 1280},
    "gpt2-xl": CONFIG | {"n_layer": 48, "n_head": 25, "n_embd": 1600},
}


def shapes(config: dict[str, Any] = CONFIG) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all tensors, as transformers saves them (the head is tied)."""
    n = config["n_embd"]
    yield "transformer.wte.weight", (config["vocab_size"], n)
    yield "transformer.wpe.weight", (config["n_positions"], n)
    for layer in range(config["n_layer"]):
        at = f"transformer.h.{layer}."
        yield at + "ln_1.weight", (n,)
        yield at + "ln_1.bias", (n,)
        yield at + "attn.c_attn.weight", (n, 3 * n)
        yield at + "attn.c_attn.bias", (3 * n,)
        yield at + "attn.c_proj.weight", (n, n)
        yield at + "attn.c_proj.bias", (n,)
        yield at + "ln_2.weight", (n,)
        yield at + "ln_2.bias", (n,)
        yield at + "mlp.c_fc.weight", (n, 4 * n)
        yield at + "mlp.c_fc.bias", (4 * n,)
        yield at + "mlp.c_proj.weight", (4 * n, n)
        yield at + "mlp.c_proj.bias", (n,)
    yield "transformer.ln_f.weight", (n,)
    yield "transformer.ln_f.bias", (n,)


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor of weights, f32. Norm gains lie round 1, matrices are twice GPT-2's first."""
    raw = np.random.PCG64([SEED, zlib.crc32(name.encode())]).random_raw(int(np.prod(shape)))
    total = raw.view("<u2").reshape(-1, 4).sum(axis=1, dtype=np.int64) - 2 * 65535
    # A 16-bit part deviates by 65536 / sqrt(12), and four of them by twice that.
    standard = total / (65536.0 / np.sqrt(3.0))
    if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")):
        weights = 1.0 + 0.1 * standard
    elif name.endswith(".bias"):
        weights = 0.02 * standard
    else:
        weights = 0.04 * standard
    return weights.astype("<f4").reshape(shape)


def write(folder: Path, shape: str = "gpt2-124m") -> Path:
    """Write model.safetensors and config.json; returns the path of the former."""
    config = SHAPES[shape]
    dtype, kind = ("F32", "<f4") if shape == "gpt2-124m" else ("F16", "<f2")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    header: dict[str, object] = {}
    offset = 0
    for name, sizes in shapes(config):
        size = np.dtype(kind).itemsize * int(np.prod(sizes))
        header[name] = {"dtype": dtype, "shape": sizes, "data_offsets": (offset, offset + size)}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, sizes in shapes(config):
            file.write(tensor(name, sizes).astype(kind, copy=False).data)
    return path


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), *sys.argv[2:]))

"""Seeded random weights in the shape of GPT-2 124M, the same on every machine.

The file is 498 MB, so the repository holds this recipe instead of the weights. It needs numpy
alone. Every tensor has a generator of its own, seeded by (SEED, CRC-32 of its name). A weight is
the sum of the four 16-bit parts of one raw PCG64 output, brought to mean 0 and to the wanted
standard deviation: close to a normal distribution, and unlike numpy's own normals promised to be
the same in every version of numpy.

    python tests/golden/recipe.py FOLDER      # writes model.safetensors and config.json
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SEED = 124
CONFIG = {
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


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all tensors, as transformers saves them (the head is tied)."""
    n = 768
    yield "transformer.wte.weight", (50257, n)
    yield "transformer.wpe.weight", (1024, n)
    for layer in range(12):
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


def write(folder: Path) -> Path:
    """Write model.safetensors and config.json; returns the path of the former."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1))
    header: dict[str, object] = {}
    offset = 0
    for name, shape in shapes():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (offset, offset + size)}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes():
            file.write(tensor(name, shape).data)
    return path


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))

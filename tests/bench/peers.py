"""GPT-2 in other people's engines on one thread, as a process that decodes when it is told to.

    python tests/bench/peers.py WAY FOLDER

Reads model.safetensors (f32) and config.json, prints `ready`, then answers each line "PROMPT NEW"
with the seconds that NEW tokens took after a prompt of PROMPT tokens, greedily, with a KV cache.
The prompt's own pass is not in the time. Needs numpy and, for its ways, torch or ctranslate2.

The ways of PyTorch differ in which layers are int8 (`quantize_dynamic`): none; `nn.Linear` alone,
which in Hugging Face's GPT-2 is the lm_head, because its other layers are `Conv1D`; or every layer.
The forward pass is written out here, so that no time goes into what a library does around it.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

Tensors = dict[str, Any]
Decode = Callable[[int, int], float]


def read(folder: Path) -> tuple[dict[str, Any], Tensors]:
    """The configuration, and the tensors without their `transformer.`."""
    config = json.loads((folder / "config.json").read_text())
    path = folder / "model.safetensors"
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, "r", 8 + length)
    types = {"F32": "<f4", "F16": "<f2"}
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = data[begin:end].view(types[entry["dtype"]]).astype("<f4")
        tensors[name.removeprefix("transformer.")] = values.reshape(entry["shape"])
    return config, tensors


def prompt_of(length: int, vocabulary: int) -> list[int]:
    """The token ids that `scripts/bench engine` uses too."""
    return [(7 * i + 3) % vocabulary for i in range(length)]


def torch_decoder(way: str, folder: Path) -> Decode:
    """PyTorch: `way` is torch-f32, torch-linear-int8 or torch-int8."""
    import torch
    from torch import Tensor, nn
    from torch.ao.quantization import quantize_dynamic
    from torch.nn import functional

    torch.set_num_threads(1)
    config, tensors = read(folder)
    n, heads, layers = config["n_embd"], config["n_head"], config["n_layer"]

    class Conv1D(nn.Module):
        """As Hugging Face's: the weight lies as [in, out]."""

        def __init__(self, weight: Tensor, bias: Tensor) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x, self.weight)

    def parameter(name: str) -> Tensor:
        return torch.from_numpy(tensors[name])

    def layer(name: str) -> nn.Module:
        weight, bias = parameter(name + ".weight"), parameter(name + ".bias")
        if way != "torch-int8":
            return Conv1D(weight, bias)
        linear = nn.Linear(*weight.shape)
        linear.weight, linear.bias = nn.Parameter(weight.T.contiguous()), nn.Parameter(bias)
        return linear

    names = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    blocks = nn.ModuleList(
        nn.ModuleList(layer(f"h.{i}.{name}") for name in names) for i in range(layers)
    )
    head = nn.Linear(n, config["vocab_size"], bias=False)
    head.weight = nn.Parameter(parameter("wte.weight"))
    model = nn.ModuleDict({"blocks": blocks, "head": head})
    if way != "torch-f32":
        model = quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    wte, wpe = parameter("wte.weight"), parameter("wpe.weight")

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(
            x, (n,), parameter(name + ".weight"), parameter(name + ".bias")
        )

    def forward(ids: list[int], past: int, keys: Tensor, values: Tensor) -> Tensor:
        """[T] ids after `past` others -> logits of the last; caches are [layer, head, n_ctx, d]."""
        t = len(ids)
        x = wte[ids] + wpe[past : past + t]
        for i, (attn, attn_proj, fc, proj) in enumerate(model["blocks"]):
            qkv = attn(norm(x, f"h.{i}.ln_1")).view(t, 3, heads, n // heads)
            q, k, v = qkv.permute(1, 2, 0, 3)  # each [head, T, d]
            keys[i, :, past : past + t], values[i, :, past : past + t] = k, v
            seen = functional.scaled_dot_product_attention(
                q[None],
                keys[None, i, :, : past + t],
                values[None, i, :, : past + t],
                is_causal=t > 1,
            )
            x = x + attn_proj(seen[0].transpose(0, 1).reshape(t, n))
            x = x + proj(functional.gelu(fc(norm(x, f"h.{i}.ln_2")), approximate="tanh"))
        return model["head"](norm(x[-1:], "ln_f"))[0]

    @torch.inference_mode()
    def decode(prompt: int, new: int) -> float:
        shape = (layers, heads, config["n_positions"], n // heads)
        keys, values = torch.zeros(shape), torch.zeros(shape)
        logits = forward(prompt_of(prompt, config["vocab_size"]), 0, keys, values)
        start = time.perf_counter()
        for past in range(prompt, prompt + new):
            logits = forward([int(logits.argmax())], past, keys, values)
        return time.perf_counter() - start

    return decode


def ctranslate2_decoder(folder: Path) -> Decode:
    """CTranslate2 with every layer int8."""
    import ctranslate2
    from ctranslate2.specs import Activation, TransformerDecoderModelSpec

    config, tensors = read(folder)
    spec = TransformerDecoderModelSpec.from_config(
        config["n_layer"], config["n_head"], pre_norm=True, activation=Activation.GELUTanh
    )
    decoder = spec.decoder

    def norm(target: Any, name: str) -> None:
        target.gamma, target.beta = tensors[name + ".weight"], tensors[name + ".bias"]

    def linear(target: Any, name: str) -> None:
        target.weight = np.ascontiguousarray(tensors[name + ".weight"].T)
        target.bias = tensors[name + ".bias"]

    decoder.scale_embeddings = False
    decoder.embeddings.weight = tensors["wte.weight"]
    decoder.position_encodings.encodings = tensors["wpe.weight"]
    decoder.projection.weight = tensors["wte.weight"]
    norm(decoder.layer_norm, "ln_f")
    for i, layer in enumerate(decoder.layer):
        norm(layer.self_attention.layer_norm, f"h.{i}.ln_1")
        linear(layer.self_attention.linear[0], f"h.{i}.attn.c_attn")
        linear(layer.self_attention.linear[1], f"h.{i}.attn.c_proj")
        norm(layer.ffn.layer_norm, f"h.{i}.ln_2")
        linear(layer.ffn.linear_0, f"h.{i}.mlp.c_fc")
        linear(layer.ffn.linear_1, f"h.{i}.mlp.c_proj")
    vocabulary = [f"t{i}" for i in range(config["vocab_size"])]
    spec.register_vocabulary(vocabulary)
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = vocabulary[-1]
    spec.validate()
    spec.optimize(quantization="int8")
    with tempfile.TemporaryDirectory() as out:
        spec.save(out)
        generator = ctranslate2.Generator(
            out, device="cpu", compute_type="int8", intra_threads=1, inter_threads=1
        )

    def run(prompt: int, new: int) -> float:
        tokens = [vocabulary[i] for i in prompt_of(prompt, config["vocab_size"])]
        start = time.perf_counter()
        (result,) = generator.generate_batch(
            [tokens],
            min_length=new,
            max_length=new,
            sampling_topk=1,
            include_prompt_in_result=False,
        )
        seconds = time.perf_counter() - start
        if len(result.sequences_ids[0]) != new:
            raise SystemExit(f"{len(result.sequences_ids[0])} tokens instead of {new}")
        return seconds

    # It gives no time for the prompt alone: a run that is one token long takes its place.
    return lambda prompt, new: run(prompt, new + 1) - run(prompt, 1)


def main() -> None:
    """Answers until the input ends."""
    way, folder = sys.argv[1], Path(sys.argv[2])
    decode = (
        ctranslate2_decoder(folder) if way == "ctranslate2-int8" else torch_decoder(way, folder)
    )
    decode(1, 2)
    print("ready", flush=True)
    for line in sys.stdin:
        prompt, new = map(int, line.split())
        seconds = decode(prompt, new)
        print(seconds if math.isfinite(seconds) else 0.0, flush=True)


if __name__ == "__main__":
    main()

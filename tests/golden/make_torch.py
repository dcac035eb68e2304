"""Write files of torch.save as people have them: one tiny model in every form that is read.

    pip install "torch==2.*" "safetensors"
    python tests/golden/make_torch.py

`torch-files/model.safetensors` holds the same weights as transformers would save them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "torch-files"
LAYERS, HEADS, WIDE, CONTEXT, VOCABULARY = 2, 2, 8, 16, 11
TURNED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


@dataclass
class GPTConfig:
    """As in nanoGPT's successors, which save it beside the weights."""

    block_size: int = CONTEXT
    vocab_size: int = VOCABULARY
    n_layer: int = LAYERS
    n_head: int = HEADS
    n_embd: int = WIDE


def weights() -> dict[str, torch.Tensor]:
    shapes = {"wte.weight": (VOCABULARY, WIDE), "wpe.weight": (CONTEXT, WIDE)}
    for layer in range(LAYERS):
        at = f"h.{layer}."
        shapes |= {
            at + "ln_1.weight": (WIDE,),
            at + "ln_1.bias": (WIDE,),
            at + "attn.c_attn.weight": (WIDE, 3 * WIDE),
            at + "attn.c_attn.bias": (3 * WIDE,),
            at + "attn.c_proj.weight": (WIDE, WIDE),
            at + "attn.c_proj.bias": (WIDE,),
            at + "ln_2.weight": (WIDE,),
            at + "ln_2.bias": (WIDE,),
            at + "mlp.c_fc.weight": (WIDE, 4 * WIDE),
            at + "mlp.c_fc.bias": (4 * WIDE,),
            at + "mlp.c_proj.weight": (4 * WIDE, WIDE),
            at + "mlp.c_proj.bias": (WIDE,),
        }
    shapes |= {"ln_f.weight": (WIDE,), "ln_f.bias": (WIDE,)}
    return {name: torch.randn(shape) / 4 for name, shape in shapes.items()}


def whole(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """A model object with these weights."""
    model = torch.nn.Module()
    known: dict[int, torch.nn.Parameter] = {}
    for name, value in state.items():
        *way, last = name.split(".")
        place = model
        for step in way:
            if step not in dict(place.named_children()):
                place.add_module(step, torch.nn.Module())
            place = dict(place.named_children())[step]
        parameter = known.setdefault(id(value), torch.nn.Parameter(value))
        place.register_parameter(last, parameter)
    model.config = GPTConfig()
    return model


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(7)
    plain = weights()
    save_file(plain, FOLDER / "model.safetensors")
    trunk = {f"transformer.{name}": one for name, one in plain.items()}
    tied = {**trunk, "lm_head.weight": plain["wte.weight"]}
    mask = torch.tril(torch.ones(CONTEXT, CONTEXT)).view(1, 1, CONTEXT, CONTEXT)
    nano = {n: one.t().contiguous() if n.endswith(TURNED) else one for n, one in tied.items()}
    nano["transformer.h.0.attn.bias"] = mask
    arguments = {
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_embd": WIDE,
        "block_size": CONTEXT,
        "bias": True,
        "vocab_size": VOCABULARY,
        "dropout": 0.0,
    }
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.randn(3))])
    training = {"iter_num": 100, "best_val_loss": torch.tensor(1.5), "model_args": arguments}

    def compiled(prefix: str) -> dict[str, torch.Tensor]:
        return {prefix + name: one for name, one in nano.items()}

    def save(name: str, content: object, **more: bool) -> None:
        torch.save(content, FOLDER / name, **more)

    save("plain.pth", plain)
    save("tied.pth", tied)
    save("older.pth", tied, _use_new_zipfile_serialization=False)
    save("wrapped.pth", {"state_dict": {f"module.{n}": one for n, one in tied.items()}, "epoch": 3})
    save("half.pth", {name: one.half() for name, one in plain.items()})
    save("bfloat16.pth", {name: one.bfloat16() for name, one in plain.items()})
    save("double.pth", {name: one.double() for name, one in plain.items()})
    save("parameters.pth", {name: torch.nn.Parameter(one) for name, one in plain.items()})
    # Views: of one long storage, and of matrices that lie the other way round.
    together = torch.cat([one.flatten() for one in plain.values()])
    views, place = {}, 0
    for name, one in plain.items():
        views[name] = together[place : place + one.numel()].view(one.shape)
        place += one.numel()
    views["wte.weight"] = plain["wte.weight"].t().contiguous().t()
    save("views.pth", views)
    save("nanogpt.pt", {"model": compiled(""), "optimizer": optimizer.state_dict(), **training})
    save("compiled.pt", {"model": compiled("_orig_mod."), **training})
    save("parallel.pt", {"model": compiled("_orig_mod.module."), "config": GPTConfig(), "step": 9})
    save("whole.pth", torch.nn.Linear(2, 2))
    save("object.pth", whole(tied))


if __name__ == "__main__":
    main()

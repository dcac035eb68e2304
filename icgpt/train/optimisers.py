"""The optimisers of a run, and the learning rate over its steps.

With Muon, it turns the matrices inside the blocks and AdamW the rest; with AdamW alone, that turns
all. Biases and norms are never decayed. The rate climbs for `warmup` steps and falls along a
cosine.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from icgpt.train.model import Gpt
from icgpt.train.muon import Muon
from icgpt.train.presets import MUON, Settings

BETA1 = 0.9
MOMENTUM = 0.95


def optimisers(model: Gpt, s: Settings) -> list[Any]:
    """Muon (where it is wanted) and AdamW, for a model's parameters in groups."""
    inner, decayed, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif ".h." in name and s.optimizer == MUON:
            inner.append((parameter, 3 if "c_attn" in name else 1))
        else:
            decayed.append(parameter)
    groups = [
        {"params": decayed, "weight_decay": s.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    rate: dict[str, Any] = {"lr": s.learning_rate, "betas": (BETA1, s.beta2)}
    if not inner:
        # All parameters in one pass. (Beside Muon there are few, and a run's weights stay as
        # they were before PyTorch could do this.)
        return [torch.optim.AdamW(groups, **rate, fused=True)]
    adamw = torch.optim.AdamW(groups, **rate)
    return [Muon(inner, lr=s.matrix_lr, momentum=MOMENTUM, weight_decay=s.weight_decay), adamw]


def learning_rate(step: int, s: Settings) -> float:
    """The part of the peak rate that applies at `step`: 0 to 1."""
    warm = min(1.0, (step + 1) / max(1, s.warmup))
    fallen = 0.5 * (1.0 + math.cos(math.pi * step / s.max_iters))
    return warm * (s.min_lr + (1.0 - s.min_lr) * fallen)


def set_rates(optims: list[Any], step: int, s: Settings) -> None:
    """Gives all parameters the rate of a step."""
    peaks = [s.learning_rate] if len(optims) == 1 else [s.matrix_lr, s.learning_rate]
    for optim, peak in zip(optims, peaks, strict=True):
        for group in optim.param_groups:
            group["lr"] = peak * learning_rate(step, s)

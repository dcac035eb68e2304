"""Muon: momentum whose update is made orthogonal, for the matrices inside the blocks.

Every direction of a matrix then learns at the same pace, and a run needs fewer steps than with
AdamW alone. Unlike torch.optim.Muon, it works in float32 on stacks of equal shapes (few, large
operations, which suits a CPU), and treats queries, keys and values, which GPT-2 keeps in one
matrix, as the three matrices they are.
Source: Keller Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024).
"""

# PyTorch is an extra: where it is missing, mypy knows nothing of the classes below.
# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

# Newton-Schulz coefficients of the source: fastest climb of small singular values.
A, B, C = 3.4445, -4.7750, 2.0315
STEPS = 5


def orthogonalise(stack: Tensor) -> Tensor:
    """[N, m, n] with m <= n -> about the nearest matrices with orthonormal rows."""
    x = stack / (stack.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT  # [N, m, m]
        x = A * x + torch.baddbmm(B * gram, gram, gram, alpha=C) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Takes (matrix [in, out], how many matrices lie side by side in it)."""

    def __init__(
        self,
        matrices: Iterable[tuple[torch.nn.Parameter, int]],
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        listed = list(matrices)
        super().__init__(
            [{"params": [p], "parts": parts} for p, parts in listed],
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move every matrix by one orthogonal update."""
        stacks: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        targets: dict[tuple[int, int], list[tuple[Tensor, float]]] = defaultdict(list)
        for group in self.param_groups:
            (p,) = group["params"]
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            memory = state["momentum"].lerp_(p.grad, 1.0 - group["momentum"])
            update = torch.lerp(p.grad, memory, group["momentum"])  # Nesterov's look ahead
            p.mul_(1.0 - group["lr"] * group["weight_decay"])
            for part, target in zip(
                update.chunk(group["parts"], dim=1), p.chunk(group["parts"], dim=1), strict=True
            ):
                n_in, n_out = part.shape
                # Wide layers take larger steps, so that outputs change alike everywhere.
                rate = group["lr"] * max(1.0, n_out / n_in) ** 0.5
                if n_in > n_out:
                    part, target = part.mT, target.mT
                stacks[part.shape].append(part)
                targets[part.shape].append((target, rate))
        for shape, parts in stacks.items():
            for change, (target, rate) in zip(
                orthogonalise(torch.stack(parts)), targets[shape], strict=True
            ):
                target.add_(change, alpha=-rate)

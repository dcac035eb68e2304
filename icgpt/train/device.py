"""Where a run computes: one device, or several processes that `torchrun` started.

Each process has its own device and a share of every step's batches; gradients are averaged before
the step, so all hold the same weights. nccl joins CUDA devices, gloo everything else.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, distributed

from icgpt.errors import UsageError

AUTO: Final = "auto"


@dataclass(frozen=True)
class Device:
    """One process's device, and its place among the others."""

    kind: str = "cpu"
    half: bool = False
    """Whether matrices are multiplied in bfloat16; weights and sums stay in float32."""
    rank: int = 0
    world: int = 1
    compiled: bool = False
    """Whether PyTorch compiles the model first: worth its minute where a run takes many."""

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes."""
        return self.rank == 0

    def put(self, tensor: Tensor) -> Tensor:
        """A tensor on this device."""
        return tensor if self.kind == "cpu" else tensor.to(self.kind, non_blocking=True)

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision, where it is wanted."""
        if not self.half:
            return nullcontext()
        mixed: AbstractContextManager[Any] = torch.autocast(self.kind, dtype=torch.bfloat16)
        return mixed

    def summed(self, number: float) -> float:
        """The sum of a number over all processes."""
        if self.world == 1:
            return number
        together = self.put(torch.tensor(number, dtype=self._exact()))
        distributed.all_reduce(together)
        return float(together)

    def average(self, parameters: list[Any]) -> None:
        """Makes all processes' gradients their mean, all in one message."""
        if self.world == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(flat)
        flat /= self.world
        for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def close(self) -> None:
        """Leaves the others."""
        if self.world > 1:
            distributed.destroy_process_group()

    def name(self) -> str:
        """For people: what computes."""
        if self.kind == "cuda":
            what = str(torch.cuda.get_device_name())
        else:
            count = torch.get_num_threads()
            cpu = f"{count} CPU thread{'s' if count > 1 else ''}"
            what = cpu if self.kind == "cpu" else "Apple's GPU"
        return what if self.world == 1 else f"{self.world} processes, each on {what}"

    def _exact(self) -> torch.dtype:
        return torch.float32 if self.kind == "mps" else torch.float64


def open_device(
    wanted: str = AUTO,
    precision: str = AUTO,
    threads: int | None = None,
    compiled: bool | None = None,
) -> Device:
    """The device that was asked for, or the fastest there is; joins torchrun's other processes."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = next((one for one in there if there[one]), "cpu") if wanted == AUTO else wanted
    if not there.get(kind, True):
        raise UsageError(
            f"PyTorch finds no {kind} device here", "Leave --device out, or say --device cpu."
        )
    if threads is not None:
        torch.set_num_threads(threads)
    world, rank = (int(os.environ.get(name, default)) for name, default in _RUN)
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if world > 1:
        distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    # On CPUs, bfloat16 is seldom faster and makes runs differ between machines.
    fast = kind == "cuda" and torch.cuda.is_bf16_supported()
    half = precision == "bfloat16" or (precision == AUTO and fast)
    # On CPUs it needs a C++ compiler, and gains little for small models.
    return Device(kind, half, rank, world, kind == "cuda" if compiled is None else compiled)


_RUN: Final = (("WORLD_SIZE", "1"), ("RANK", "0"))

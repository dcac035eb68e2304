"""The training loop: batches, optimisers, learning rate, evaluation.

Muon turns the matrices inside the blocks, AdamW the rest. The learning rate climbs for
`warmup` steps and falls along a cosine to zero. Loss is in nats per token; a whole text's
loss is taken over contiguous windows of `n_ctx`, each token but the first predicted once.
Shapes: B windows of T = n_ctx tokens, V symbols.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from icgpt.train import export
from icgpt.train.data import Corpus
from icgpt.train.errors import DivergedError
from icgpt.train.model import Gpt
from icgpt.train.muon import Muon
from icgpt.train.presets import Settings

EVAL_WINDOWS = 32  # windows in one step of evaluation: bounds its memory


@dataclass(frozen=True)
class Result:
    """What a run came to; both losses belong to the weights as written, in float16."""

    parameters: int
    iterations: int
    best_iteration: int
    train_loss: float  # over as much text as the validation part has, from the start
    validation_loss: float
    seconds: float
    threads: int
    interrupted: bool
    sample: str


class Watcher(Protocol):
    """Who follows a run, and may end it."""

    def started(self, parameters: int) -> None:
        """Before the first step."""

    def stepped(self, step: int, loss: float) -> None:
        """After each step, with the loss of its batch."""

    def checked(self, step: int, train: float, validation: float) -> None:
        """After each evaluation; `train` is the mean over the batches since the last one."""

    def wants_stop(self) -> bool:
        """Whether to save what there is and end; asked after each step."""


def batches(ids: NDArray[np.int64], s: Settings) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (inputs, targets), each [B, T].

    Every pass cuts the text at a new offset and shuffles the windows: each token comes once
    a pass (but for the ends of the text), each time at another position.
    """
    rng = np.random.default_rng(s.seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < s.batch:
            offset = int(rng.integers(0, min(s.n_ctx, len(ids) - s.n_ctx)))
            starts = np.arange(offset, len(ids) - s.n_ctx, s.n_ctx)
            waiting.extend(rng.permutation(starts).tolist())
        chosen, waiting = waiting[: s.batch], waiting[s.batch :]
        rows = torch.from_numpy(np.stack([ids[i : i + s.n_ctx + 1] for i in chosen]))
        yield rows[:, :-1], rows[:, 1:]


def evaluate(model: Gpt, ids: NDArray[np.int64], n_ctx: int) -> float:
    """Mean loss over a whole text."""
    text = torch.from_numpy(ids)
    end = len(ids) - 1
    whole = end // n_ctx
    inputs = text[: whole * n_ctx].view(whole, n_ctx)
    targets = text[1 : whole * n_ctx + 1].view(whole, n_ctx)
    pieces = list(zip(inputs.split(EVAL_WINDOWS), targets.split(EVAL_WINDOWS), strict=True))
    if whole * n_ctx < end:
        pieces.append((text[whole * n_ctx : end][None], text[whole * n_ctx + 1 :][None]))
    total = 0.0
    model.eval()
    with torch.no_grad():
        for x, y in pieces:
            logits = model(x).flatten(0, 1)  # [B * T, V]
            total += float(functional.cross_entropy(logits, y.flatten(), reduction="sum"))
    model.train()
    return total / end


def sample(model: Gpt, s: Settings, length: int, temperature: float) -> list[int]:
    """Ids that the model writes after id 0, seeded like the run."""
    generator = torch.Generator().manual_seed(s.seed)
    ids = torch.zeros(1, 1, dtype=torch.long)
    model.eval()
    with torch.no_grad():
        for _ in range(length):
            logits = model(ids[:, -s.n_ctx :])[0, -1] / temperature
            drawn = torch.multinomial(logits.softmax(0), 1, generator=generator)
            ids = torch.cat((ids, drawn[None]), dim=1)
    model.train()
    return [int(i) for i in ids[0, 1:]]


def optimisers(model: Gpt, s: Settings) -> list[Any]:
    """Muon for the matrices in the blocks, AdamW for embeddings, biases and norms."""
    inner, embeddings, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif ".h." in name:
            inner.append((parameter, 3 if "c_attn" in name else 1))
        else:
            embeddings.append(parameter)
    groups = [
        {"params": embeddings, "weight_decay": s.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [
        Muon(inner, lr=s.matrix_lr, momentum=0.95, weight_decay=s.weight_decay),
        torch.optim.AdamW(groups, lr=s.other_lr, betas=(0.9, 0.99)),
    ]


def learning_rate(step: int, s: Settings) -> float:
    """The part of the peak rate that applies at `step`: 0 to 1."""
    warm = min(1.0, (step + 1) / max(1, s.warmup))
    return warm * 0.5 * (1.0 + math.cos(math.pi * step / s.max_iters))


def half(model: Gpt) -> export.Weights:
    """A copy of the weights by their checkpoint names, as float16."""
    state = model.state_dict()
    return {name: weight.detach().to(torch.float16).numpy() for name, weight in state.items()}


def run(corpus: Corpus, s: Settings, folder: Path, watcher: Watcher) -> Result:
    """Train from scratch. From the first evaluation on, the folder holds the best model."""
    began = time.monotonic()
    torch.manual_seed(s.seed)
    model = Gpt(s, len(corpus.alphabet))
    optims = optimisers(model, s)
    peaks = [optim.param_groups[0]["lr"] for optim in optims]
    watcher.started(model.parameter_count())
    best_loss, best_step, best = math.inf, 0, half(model)
    recent: list[float] = []
    step, stopped = 0, False
    for x, y in batches(corpus.train, s):
        for optim, peak in zip(optims, peaks, strict=True):
            for group in optim.param_groups:
                group["lr"] = peak * learning_rate(step, s)
        loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        step += 1
        recent.append(loss.item())
        watcher.stepped(step, recent[-1])
        stopped = step < s.max_iters and watcher.wants_stop()
        last = stopped or step == s.max_iters
        if last or step % s.eval_every == 0:
            validation = evaluate(model, corpus.validation, s.n_ctx)
            if not math.isfinite(validation):
                raise DivergedError(
                    f"The loss is no longer a number after {step} steps",
                    "Try another --seed, or a text with more variety.",
                )
            train = sum(recent) / len(recent)
            recent.clear()
            if validation < best_loss:
                best_loss, best_step, best = validation, step, half(model)
                export.write_model(folder, s, corpus.alphabet, best)
            seconds = round(time.monotonic() - began, 1)
            export.append_log(
                folder,
                {"step": step, "train": train, "validation": validation, "seconds": seconds},
            )
            watcher.checked(step, train, validation)
        if last:
            break
    # The rounded weights are what others get, so theirs are the losses to report.
    model.load_state_dict({name: torch.from_numpy(w).float() for name, w in best.items()})
    return Result(
        parameters=model.parameter_count(),
        iterations=step,
        best_iteration=best_step,
        train_loss=evaluate(model, corpus.train[: len(corpus.validation)], s.n_ctx),
        validation_loss=evaluate(model, corpus.validation, s.n_ctx),
        seconds=round(time.monotonic() - began, 1),
        threads=torch.get_num_threads(),
        interrupted=stopped,
        sample="".join(corpus.alphabet[i] for i in sample(model, s, 400, 0.8)),
    )

"""The training loop: steps, evaluations, the best weights, and going on after a break.

A step is `grad_accum` batches, whose gradients are averaged; with several processes each takes
its share of them, so that the step is the same however many there are. Loss is in nats per token.
Shapes: B windows of T = n_ctx tokens, V symbols.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import functional

from icgpt.errors import UsageError
from icgpt.train import export, log, state
from icgpt.train.batches import Batches
from icgpt.train.corpus import Corpus
from icgpt.train.device import Device
from icgpt.train.errors import DivergedError
from icgpt.train.judging import evaluate, sample
from icgpt.train.model import Gpt
from icgpt.train.optimisers import optimisers, set_rates
from icgpt.train.presets import Settings
from icgpt.train.starting import Start
from icgpt.train.state import Standing

SAMPLE_LENGTH = 400
PROMPTED_LENGTH = 100


@dataclass(frozen=True)
class Result:
    """What a run came to; all losses belong to the weights as written, in float16."""

    parameters: int
    iterations: int
    best_iteration: int
    train_loss: float  # over as much text as the validation part has, from the start
    validation_loss: float
    test_loss: float | None  # None where no part was left for the test
    seconds: float
    device: str
    interrupted: bool
    sample: str
    samples: list[str]  # what follows on each of the user's prompts, prompt and all


class Watcher(Protocol):
    """Who follows a run, and may end it."""

    def started(self, parameters: int, step: int) -> None:
        """Before the first step; `step` are done already where a run goes on."""

    def stepped(self, step: int, loss: float) -> None:
        """After each step, with the loss of its batches."""

    def checked(self, entry: dict[str, Any]) -> None:
        """After each evaluation, with what the log says of it."""

    def wants_stop(self) -> bool:
        """Whether to save what there is and end; asked after each step."""


class Run:
    """One training, from its first step or from where it was broken off."""

    def __init__(
        self,
        corpus: Corpus,
        s: Settings,
        folder: Path,
        watcher: Watcher,
        device: Device,
        start: Start | None = None,
    ) -> None:
        if s.grad_accum % device.world:
            raise UsageError(
                f"{s.grad_accum} batches a step can't be shared by {device.world} processes",
                f"Give a multiple of {device.world}: --grad-accum {device.world}",
            )
        self.corpus, self.s, self.folder = corpus, s, folder
        self.watcher, self.device = watcher, device
        torch.manual_seed(s.seed)
        self.model = Gpt(s, corpus.vocabulary.size)
        if start is not None:
            start.put_into(self.model)
        self.model.to(device.kind)
        self.optims = optimisers(self.model, s)
        self.batches = Batches(corpus.train, s)
        self.forward: Any = torch.compile(self.model) if device.compiled else self.model
        self.standing = Standing()
        self.best = half(self.model)

    def resume(self) -> None:
        """Goes on with the run that was broken off in the folder, if there is one."""
        if not state.has_state(self.folder):
            return
        parts = (self.folder, self.model, self.optims, self.batches, self.corpus, self.s)
        self.standing = state.restore(*parts)
        if self.standing.best_step:
            self.best = export.read_model(self.folder)

    def train(self, prompts: Sequence[str] = (), length: int = PROMPTED_LENGTH) -> Result:
        """All steps that are left. From the first evaluation on, the folder has the best model."""
        at, s, began = self.standing, self.s, time.monotonic() - self.standing.seconds
        if self.device.rank:
            torch.manual_seed(s.seed + self.device.rank + 1000 * at.step)  # others drop out
        if self.device.first:
            log.begin(self.folder, at.step)
        self.watcher.started(self.model.parameter_count(), at.step)
        stopped = False
        mark = (at.step, time.monotonic())
        while at.step < s.max_iters and not stopped and not self._tired():
            loss = self._step()
            at.step += 1
            at.recent += (loss,)
            self.watcher.stepped(at.step, loss)
            stopped = self.device.summed(float(self.watcher.wants_stop())) > 0
            stopped = stopped and at.step < s.max_iters
            if stopped or at.step == s.max_iters or at.step % s.eval_every == 0:
                pace = (at.step - mark[0]) * s.tokens_a_step() / (time.monotonic() - mark[1])
                at.seconds = time.monotonic() - began
                self._check(pace)
                mark = (at.step, time.monotonic())
        return self._result(stopped, time.monotonic() - began, prompts, length)

    def _step(self) -> float:
        """One step of the optimisers; the mean loss of its batches, over all processes."""
        s, device = self.s, self.device
        set_rates(self.optims, self.standing.step, s)
        total = 0.0
        for turn in range(s.grad_accum):
            starts = self.batches.next_starts()
            if turn % device.world != device.rank:
                continue
            x, y = map(device.put, self.batches.rows(starts))
            with device.autocast():
                logits = self.forward(x).flatten(0, 1)
            loss = functional.cross_entropy(logits.float(), y.flatten())
            (loss * device.world / s.grad_accum).backward()
            total += loss.item()
        device.average(list(self.model.parameters()))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), s.clip)
        for optim in self.optims:
            optim.step()
            optim.zero_grad()
        return device.summed(total) / s.grad_accum

    def _check(self, pace: float) -> None:
        """Looks at the validation part; keeps the weights if they are the best so far."""
        at = self.standing
        validation = evaluate(self.model, self.corpus.validation, self.s.n_ctx, self.device)
        if not math.isfinite(validation):
            raise DivergedError(
                f"The loss is no longer a number after {at.step} steps",
                "Try a lower learning rate, another --seed, or a text with more variety.",
            )
        entry = {
            "step": at.step,
            "train": sum(at.recent) / len(at.recent),
            "validation": validation,
            "seconds": round(at.seconds, 1),
            "tokens_per_second": round(pace, 1),
        }
        at.recent = ()
        better = validation < at.best_loss
        if better:
            at.best_loss, at.best_step, self.best = validation, at.step, half(self.model)
        if self.device.first:
            if better:
                export.write_model(self.folder, self.s, self.corpus.vocabulary, self.best)
            log.append(self.folder, entry)
            parts = (self.model, self.optims, self.batches, self.corpus, self.s)
            state.save(self.folder, at, *parts)
        self.watcher.checked(entry)

    def _tired(self) -> bool:
        """Whether the loss has not become better for as long as it may."""
        at, s = self.standing, self.s
        return bool(s.patience) and at.step - at.best_step >= s.patience * s.eval_every

    def _result(self, stopped: bool, seconds: float, prompts: Sequence[str], length: int) -> Result:
        corpus, s, device = self.corpus, self.s, self.device
        # The rounded weights are what others get, so theirs are the losses to report.
        rounded = {name: torch.from_numpy(w).float() for name, w in self.best.items()}
        self.model.load_state_dict(rounded)

        def loss(ids: Any) -> float:
            return evaluate(self.model, ids, s.n_ctx, device)

        def written(prompt: str, more: int, number: int) -> str:
            first = list(corpus.vocabulary.encode(prompt))
            ids = sample(self.model, device, first, more, seed=s.seed + number)
            return corpus.vocabulary.decode(ids)

        text = corpus.text.train
        words = written("\n" if "\n" in text else text[0], SAMPLE_LENGTH, 0)
        answers = [one + written(one, length, number) for number, one in enumerate(prompts)]
        if device.first and not stopped:
            state.remove(self.folder)
        return Result(
            parameters=self.model.parameter_count(),
            iterations=self.standing.step,
            best_iteration=self.standing.best_step,
            train_loss=loss(corpus.train[: len(corpus.validation)]),
            validation_loss=loss(corpus.validation),
            test_loss=loss(corpus.test) if len(corpus.test) else None,
            seconds=round(seconds, 1),
            device=device.name(),
            interrupted=stopped,
            sample=words,
            samples=answers,
        )


def half(model: Gpt) -> export.Weights:
    """A copy of the weights by their checkpoint names, as float16."""
    weights = model.state_dict()
    return {name: one.detach().to("cpu", torch.float16).numpy() for name, one in weights.items()}


def run(
    corpus: Corpus,
    s: Settings,
    folder: Path,
    watcher: Watcher,
    device: Device | None = None,
    *,
    resume: bool = False,
    start: Start | None = None,
    prompts: Sequence[str] = (),
    length: int = PROMPTED_LENGTH,
) -> Result:
    """Train from scratch or further, or go on where a run was broken off."""
    training = Run(corpus, s, folder, watcher, device or Device(), start)
    if resume:
        training.resume()
    return training.train(prompts, length)

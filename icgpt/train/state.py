"""What a run needs to go on after it was ended, in one file that is either whole or old.

state.pt holds weights and optimisers in full precision, the random numbers' state, and where the
run stands in its text, so that the steps after it are those of an unbroken run. It is written
beside its place, synced and renamed: a kill in the middle leaves the one before. It is read
without unpickling anything but tensors and plain values.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch

from icgpt.files import replacing
from icgpt.train.batches import Batches
from icgpt.train.corpus import Corpus
from icgpt.train.errors import ResumeError
from icgpt.train.export import STATE_FILE, unwritable
from icgpt.train.model import Gpt
from icgpt.train.presets import Settings

# What may be another after a break: it changes none of the steps before.
_FREE: Final = ("patience", "eval_every")


@dataclass
class Standing:
    """How far a run has come."""

    step: int = 0
    best_step: int = 0
    best_loss: float = float("inf")
    seconds: float = 0.0
    recent: tuple[float, ...] = ()
    """Losses of the batches since the last evaluation."""


class _Writer:
    """A file that remembers why it failed: torch tells of a full disk in words of its own."""

    def __init__(self) -> None:
        self.file: BinaryIO
        self.failure: OSError | None = None

    def write(self, content: Any) -> int:
        """Writes all of it."""
        try:
            return self.file.write(content)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        """What is written is flushed when the file is complete."""


def has_state(folder: Path) -> bool:
    """Whether a run was broken off here."""
    return (folder / STATE_FILE).exists()


def save(
    folder: Path,
    standing: Standing,
    model: Gpt,
    optims: list[Any],
    batches: Batches,
    corpus: Corpus,
    s: Settings,
) -> None:
    """Writes all that the next step depends on."""
    content = {
        "standing": asdict(standing),
        "settings": asdict(s),
        "data": corpus.text.sha256,
        "model": model.state_dict(),
        "optimisers": [optim.state_dict() for optim in optims],
        "batches": batches.state(),
        "random": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    writer = _Writer()
    try:
        with replacing(folder / STATE_FILE) as writer.file:
            torch.save(content, writer)
    except (OSError, RuntimeError) as error:
        if writer.failure is None and isinstance(error, RuntimeError):
            raise
        raise unwritable(folder, writer.failure or error) from error


def restore(
    folder: Path, model: Gpt, optims: list[Any], batches: Batches, corpus: Corpus, s: Settings
) -> Standing:
    """Puts a run back to where it stood."""
    path = folder / STATE_FILE
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        _check(content, corpus, s)
        standing = Standing(**content["standing"])
        model.load_state_dict(content["model"])
        for optim, state in zip(optims, content["optimisers"], strict=True):
            optim.load_state_dict(state)
        batches.restore(content["batches"])
        torch.set_rng_state(content["random"])
        if content["cuda"] and len(content["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(content["cuda"])
    except ResumeError:
        raise
    except Exception as error:
        raise ResumeError(
            f"{path} can't be read: {str(error)[:200] or type(error).__name__}",
            "Remove the folder and start again.",
        ) from error
    standing.recent = tuple(standing.recent)
    return standing


def remove(folder: Path) -> None:
    """When a run is done, there is nothing to go on with."""
    (folder / STATE_FILE).unlink(missing_ok=True)


def _check(content: dict[str, Any], corpus: Corpus, s: Settings) -> None:
    if content["data"] != corpus.text.sha256:
        raise ResumeError(
            "The run was broken off with another text", "Give the same --data as before."
        )
    for field in fields(Settings):
        # A setting that is younger than the state had its default.
        before = content["settings"].get(field.name, field.default)
        now = getattr(s, field.name)
        if before != now and field.name not in _FREE:
            raise ResumeError(
                f"The run was broken off with {field.name} {before}, now it is {now}",
                "Give the same options as before.",
            )

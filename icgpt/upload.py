"""Puts a checkpoint into a canister: converted where that was asked for, sent, committed, set up.

Resumable: what an earlier, broken-off run has sent is not sent again. The model that is live goes
on answering until the new one is set up.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from icgpt import seed_upload
from icgpt.checkpoint import Checkpoint
from icgpt.client import ModelCanister
from icgpt.errors import NetworkError, RefusedError, UploadError
from icgpt.results import FILES, FileInfo, ModelInfo
from icgpt.sending import Outgoing, outgoing, send
from icgpt.upload_cost import estimate, is_converted

_SETUP_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Step:
    """Where an upload stands; `done` and `total` are bytes."""

    name: str
    """"convert", "upload", "store" or "setup"."""
    done: int
    total: int
    resumed: int = 0
    """Bytes that an earlier run had sent."""


@dataclass(frozen=True)
class Upload:
    """What an upload did."""

    sent: int
    resumed: int
    seconds: float
    hashes: dict[str, bytes]
    changed: bool
    """False when the canister was running this very model already."""
    total: int
    """Bytes of all the files, sent or not."""
    layout: bytes | None = None
    """SHA-256 of the packed file that took the place of the checkpoint."""


OnStep: TypeAlias = Callable[[Step], None]


def upload(
    model: ModelCanister,
    checkpoint: Checkpoint,
    on_step: OnStep | None = None,
    force: bool = False,
    precision: str | None = None,
    seed_flow: bool = False,
    agree: Callable[[int], None] | None = None,
) -> Upload:
    """Uploads a checkpoint and sets it up.

    Args:
        model: the canister; the caller must be one of its managers.
        checkpoint: what to upload.
        on_step: told of progress.
        force: also when the canister runs this very model.
        precision: how the canister holds the weights, "f32", "int8" or "int16": they are converted
            here, and what is sent is what the canister computes with. Without it, as config.json
            says; and where that is silent the checkpoint is sent as it is, and held in f32.
            A checkpoint of halves that is wanted in f32 is sent as it is too.
        seed_flow: by the seed's own methods, which append; then the canister converts.
        agree: told how many cycles it takes at most, before anything is sent; raises to prevent it.
    """
    began = time.monotonic()
    report = on_step or (lambda step: None)
    files = {kind: outgoing(kind, file.path) for kind, file in checkpoint.files.items()}
    hashes = {kind: file.sha256 for kind, file in files.items()}
    wanted = precision or checkpoint.config.precision or "f32"
    done = _Done(report)
    info = model.info()

    def nothing_done() -> Upload:
        total = sum(file.length for file in files.values())
        return Upload(0, 0, time.monotonic() - began, hashes, False, total, layout)

    layout: bytes | None = None
    if not force and _is_live(info, hashes, wanted):
        return nothing_done()
    if agree is not None:
        agree(estimate(checkpoint, precision, seed_flow).cycles)
    there = _is_live(info, hashes) and not force
    if not there and not seed_flow and is_converted(checkpoint, precision):
        packed = _convert(checkpoint, hashes, wanted, report)
        layout = packed.sha256
        del files["safetensors"]
        files = {**files, "packed": packed}
        if not force and _is_live(info, {**hashes, "packed": layout}, wanted):
            return nothing_done()
    left_behind = {kind for kind, state in model.files().items() if state.staged is not None}
    for kind in left_behind - (set() if there else files.keys()):
        # Of another upload; it must not become part of this model.
        model.discard(kind)
    if not there:
        done.total = sum(file.length for file in files.values())
        (_append if seed_flow else _send)(model, list(files.values()), done)
    chosen = None if layout else precision
    if info.next_precision != chosen:
        model.set_precision(chosen)
    _set_up(model, done.total or checkpoint.length, hashes, report)
    known = hashes if layout is None else {**hashes, "packed": layout}
    if not _is_live(model.info(), known, wanted):
        raise UploadError(
            "the canister runs another model than the one that was sent",
            "Someone else may have uploaded at the same time. Upload again.",
        )
    seconds = time.monotonic() - began
    total = done.total or checkpoint.length
    return Upload(done.sent, done.resumed, seconds, hashes, True, total, layout)


def _is_live(info: ModelInfo, hashes: dict[str, bytes], precision: str | None = None) -> bool:
    """Whether a canister's model was made of files with these hashes."""
    if "packed" in hashes:
        same = info.layout_sha256 == hashes["packed"]
        same = same and all(info.source_sha256[k] == hashes.get(k) for k in FILES[1:])
    else:
        same = all(info.source_sha256[kind] == hashes.get(kind) for kind in FILES)
    same = same and precision in (None, info.precision)
    return info.ready and same and info.tokenizer == ("tokenizer" in hashes)


def _convert(
    checkpoint: Checkpoint, hashes: dict[str, bytes], precision: str, report: OnStep
) -> Outgoing:
    from icgpt.conversion import converted

    def tell(done: int, total: int) -> None:
        report(Step("convert", done, total))

    return converted(checkpoint, hashes, precision, tell)


class _Done:
    """Counts what has arrived, and tells."""

    def __init__(self, report: OnStep) -> None:
        self.report = report
        self.total = 0
        self.sent = 0
        self.resumed = 0

    def tell(self) -> None:
        self.report(Step("upload", self.sent + self.resumed, self.total, self.resumed))

    def arrived(self, count: int) -> None:
        self.sent += count
        self.tell()

    def found(self, count: int) -> None:
        self.resumed += count
        self.tell()


def _send(model: ModelCanister, files: list[Outgoing], done: _Done) -> None:
    states = model.files()
    for file in files:
        state = states[file.kind]
        if state.stored and state.staged == FileInfo(file.length, file.sha256):
            done.found(file.length)
        else:
            send(model, file, done.arrived, done.found)


def _append(model: ModelCanister, files: list[Outgoing], done: _Done) -> None:
    states = model.files()
    for file in files:
        seed_upload.append(model, file, states[file.kind], done.arrived, done.found)
    done.report(Step("store", 0, done.total))
    seed_upload.seal(model, files)


def _set_up(model: ModelCanister, total: int, hashes: dict[str, bytes], report: OnStep) -> None:
    report(Step("setup", 0, total))
    looked = time.monotonic()

    def look() -> None:
        nonlocal looked
        if time.monotonic() - looked < _SETUP_LOOK_SECONDS:
            return
        looked = time.monotonic()
        # How far it is matters less than that it goes on: a failed look is no failed set-up.
        with contextlib.suppress(NetworkError, RefusedError):
            info = model.info()
            if info.setup == "setting_up":
                report(Step("setup", info.setup_done, info.setup_total))

    model.setup_model(on_wait=look)
    if "tokenizer" in hashes and model.info().source_sha256["tokenizer"] != hashes["tokenizer"]:
        model.setup_tokenizer()
    report(Step("setup", total, total))

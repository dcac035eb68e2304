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
from icgpt.errors import NetworkError, RefusedError, UploadError, UsageError, quoted
from icgpt.results import FILES, FileInfo, ModelInfo
from icgpt.sending import AT_ONCE, Outgoing, outgoing, send
from icgpt.upload_cost import estimate, is_converted

_SETUP_LOOK_SECONDS: Final = 0.5
_MAX_NAME: Final = 96  # what the canister takes


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


class Source:
    """What is sent: hashed once, and converted once, however many canisters get it.

    Args:
        checkpoint: the model.
        precision: "f32", "int8" or "int16"; as config.json says when left out, and where that is
            silent the checkpoint is sent as it is, and held in f32.
        seed_flow: it is sent by the seed's own methods, so the canister converts.
        name: what the model is called there; the checkpoint's name when left out.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: str | None = None,
        seed_flow: bool = False,
        name: str | None = None,
    ) -> None:
        if name is not None and name != _fitting(name):
            raise UsageError(
                f"{quoted(name)} is no name for a model",
                f"It has 1 to {_MAX_NAME} visible characters, and no space at its ends.",
            )
        self.began = time.monotonic()
        self.checkpoint = checkpoint
        self.name = name or _fitting(checkpoint.name)
        self.was_named = name is not None
        self.precision = precision
        self.seed_flow = seed_flow
        self.wanted = precision or checkpoint.config.precision or "f32"
        self.files = {kind: outgoing(kind, file.path) for kind, file in checkpoint.files.items()}
        self.hashes = {kind: file.sha256 for kind, file in self.files.items()}
        self._packed: Outgoing | None = None

    def cycles(self) -> int:
        """What it costs a canister at most."""
        return estimate(self.checkpoint, self.precision, self.seed_flow).cycles

    def is_live(self, info: ModelInfo) -> bool:
        """Whether a canister runs this very model, in this precision."""
        if _is_live(info, self.hashes, self.wanted):
            return True
        return self._packed is not None and _is_live(info, self.known(), self.wanted)

    def is_there(self, info: ModelInfo) -> bool:
        """Whether a canister has these files, in whatever precision it runs them."""
        return _is_live(info, self.hashes)

    def convert(self, report: OnStep) -> None:
        """Converts the weights, unless that was done or they are sent as they are."""
        if self._packed is not None or self.seed_flow:
            return
        if not is_converted(self.checkpoint, self.precision):
            return
        from icgpt.conversion import converted

        def tell(done: int, total: int) -> None:
            report(Step("convert", done, total))

        self._packed = converted(self.checkpoint, self.hashes, self.wanted, tell)
        del self.files["safetensors"]
        self.files["packed"] = self._packed

    def known(self) -> dict[str, bytes]:
        """The SHA-256 of the files, and of the packed one if there is one."""
        layout = self.layout
        return self.hashes if layout is None else {**self.hashes, "packed": layout}

    @property
    def layout(self) -> bytes | None:
        """SHA-256 of the packed file, once there is one."""
        return None if self._packed is None else self._packed.sha256

    def nothing_done(self) -> Upload:
        """What is told of a canister that has it."""
        return Upload(0, 0, self.seconds(), self.hashes, False, self.length(), self.layout)

    def length(self) -> int:
        """Bytes of all that is sent."""
        return sum(file.length for file in self.files.values())

    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began


def upload(
    model: ModelCanister,
    checkpoint: Checkpoint,
    on_step: OnStep | None = None,
    force: bool = False,
    precision: str | None = None,
    seed_flow: bool = False,
    agree: Callable[[int], None] | None = None,
    name: str | None = None,
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
        name: what the model is called there; the checkpoint's name when left out.
    """
    report = on_step or (lambda step: None)
    source = Source(checkpoint, precision, seed_flow, name)
    info = model.info()
    if force or not source.is_live(info):
        if agree is not None:
            agree(source.cycles())
        if force or not source.is_there(info):
            source.convert(report)
    return put(model, source, info, report, force)


def put(
    model: ModelCanister,
    source: Source,
    info: ModelInfo,
    report: OnStep,
    force: bool = False,
    at_once: int = AT_ONCE,
) -> Upload:
    """Brings a canister to run a source, which was converted where it is to be.

    Args:
        model: the canister.
        source: what is sent; several threads may put the same one.
        info: what the canister has said of itself.
        report: told of progress.
        force: also when the canister runs this very model.
        at_once: how many chunks may be on their way.
    """
    if not force and source.is_live(info):
        _call(model, info, source)
        return source.nothing_done()
    there = source.is_there(info) and not force
    done = _Done(report)
    left_behind = {kind for kind, state in model.files().items() if state.staged is not None}
    for kind in left_behind - (set() if there else source.files.keys()):
        # Of another upload; it must not become part of this model.
        model.discard(kind)
    if not there:
        done.total = source.length()
        files = list(source.files.values())
        if source.seed_flow:
            _append(model, files, done)
        else:
            _send(model, files, done, at_once)
    layout = None if there else source.layout
    chosen = None if layout else source.precision
    if info.next_precision != chosen:
        model.set_precision(chosen)
    total = done.total or source.checkpoint.length
    _set_up(model, total, source.hashes, report)
    known = source.hashes if layout is None else source.known()
    info = model.info()
    if not _is_live(info, known, source.wanted):
        raise UploadError(
            "the canister runs another model than the one that was sent",
            "Someone else may have uploaded at the same time. Upload again.",
        )
    _call(model, info, source)
    return Upload(done.sent, done.resumed, source.seconds(), source.hashes, True, total, layout)


def _is_live(info: ModelInfo, hashes: dict[str, bytes], precision: str | None = None) -> bool:
    """Whether a canister's model was made of files with these hashes."""
    if "packed" in hashes:
        same = info.layout_sha256 == hashes["packed"]
        same = same and all(info.source_sha256[k] == hashes.get(k) for k in FILES[1:])
    else:
        same = all(info.source_sha256[kind] == hashes.get(kind) for kind in FILES)
    same = same and precision in (None, info.precision)
    return info.ready and same and info.tokenizer == ("tokenizer" in hashes)


def _call(model: ModelCanister, info: ModelInfo, source: Source) -> None:
    """Gives the model its name. One that it has gives way only to a name that was asked for."""
    if info.name != source.name and (source.was_named or info.name is None):
        model.set_name(source.name)


def _fitting(name: str) -> str | None:
    """A name as canisters take it; None where nothing of it is left."""
    plain = "".join(one for one in name if one.isprintable())
    return plain.strip()[:_MAX_NAME].strip() or None


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


def _send(model: ModelCanister, files: list[Outgoing], done: _Done, at_once: int) -> None:
    states = model.files()
    for file in files:
        state = states[file.kind]
        if state.stored and state.staged == FileInfo(file.length, file.sha256):
            done.found(file.length)
        else:
            send(model, file, done.arrived, done.found, at_once)


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

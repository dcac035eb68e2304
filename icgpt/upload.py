"""Puts a checkpoint into a canister: append calls in order, then store, load and set-up.

Resumable: what an earlier, broken-off run has sent is recognised by its SHA-256 and not sent again.
After every chunk the canister answers with the length and SHA-256 of all that it has, and both
must be ours. The model that is live goes on answering until the new one is set up.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeAlias

from icgpt.checkpoint import Checkpoint, SourceFile, hash_file
from icgpt.checkpoint.safetensors import READABLE
from icgpt.client import ModelCanister
from icgpt.errors import CheckpointError, NetworkError, RefusedError, UploadError
from icgpt.results import FILES, FileInfo, FileState, ModelInfo

CHUNK_BYTES: Final = 1_900_000  # with signature and framing, below the 2 MiB of a message
_SETUP_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Step:
    """Where an upload stands; `done` and `total` are bytes."""

    name: str
    """"upload", "store" or "setup"."""
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


OnStep: TypeAlias = Callable[[Step], None]


def upload(
    model: ModelCanister,
    checkpoint: Checkpoint,
    on_step: OnStep | None = None,
    force: bool = False,
    precision: str | None = None,
) -> Upload:
    """Uploads a checkpoint and sets it up.

    Args:
        model: the canister; the caller must be one of its managers.
        checkpoint: what to upload.
        on_step: told of progress.
        force: also when the canister runs this very model.
        precision: how the canister holds the weights, "f32", "int8" or "int16"; as config.json
            says when left out, and f32 where that is silent.
    """
    began = time.monotonic()
    report = on_step or (lambda step: None)
    hashes = {kind: file.sha256() for kind, file in checkpoint.files.items()}
    wanted = precision or checkpoint.config.precision or "f32"
    info = model.info()
    if not force and _is_live(info, hashes, wanted):
        return Upload(0, 0, time.monotonic() - began, hashes, changed=False)

    states = model.files()
    sender = _Sender(model, checkpoint, report)
    if force or not _is_live(info, hashes) or any(one.staged for one in states.values()):
        _send(model, checkpoint, states, sender, hashes)
    if info.next_precision != precision:
        model.set_precision(precision)
    _set_up(model, checkpoint, report)
    if not _is_live(model.info(), hashes, wanted):
        raise UploadError(
            "the canister runs another model than the one that was sent",
            "Someone else may have uploaded at the same time. Upload again.",
        )
    return Upload(sender.sent, sender.resumed, time.monotonic() - began, hashes, changed=True)


def _is_live(info: ModelInfo, hashes: dict[str, bytes], precision: str | None = None) -> bool:
    same = all(info.source_sha256[kind] == hashes.get(kind) for kind in FILES)
    same = same and precision in (None, info.precision)
    return info.ready and same and info.tokenizer == ("tokenizer" in hashes)


def _send(
    model: ModelCanister,
    checkpoint: Checkpoint,
    states: dict[str, FileState],
    sender: _Sender,
    hashes: dict[str, bytes],
) -> None:
    for kind, state in states.items():
        if kind not in checkpoint.files and state.staged is not None:
            # Left behind by another upload; it must not become part of this model.
            model.clear(kind)
    for kind, file in checkpoint.files.items():
        sender.send(file, states[kind], hashes[kind])
    sender.report(Step("store", 0, checkpoint.length))
    for seal in (model.store, model.load):
        for kind, file in checkpoint.files.items():
            if kind != "config":
                _expect(seal(kind), file.length, hashes[kind])


def _expect(info: FileInfo, length: int, sha256: bytes) -> None:
    if info.length != length or info.sha256 != sha256:
        raise UploadError(
            f"the canister has {info.length:,} bytes with the SHA-256 {info.sha256.hex()[:12]}…, "
            f"not the {length:,} bytes with {sha256.hex()[:12]}… that were sent",
            "Someone else may be uploading at the same time. Upload again.",
        )


def _set_up(model: ModelCanister, checkpoint: Checkpoint, report: OnStep) -> None:
    weights = checkpoint.files["safetensors"].length
    report(Step("setup", 0, weights))
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
    if "tokenizer" in checkpoint.files:
        model.setup_tokenizer()
    report(Step("setup", weights, weights))


class _Sender:
    """Sends files chunk by chunk and counts what went over the wire."""

    def __init__(self, model: ModelCanister, checkpoint: Checkpoint, report: OnStep) -> None:
        self.model = model
        self.total = checkpoint.length
        self.report = report
        self.sent = 0
        self.resumed = 0

    def send(self, file: SourceFile, state: FileState, sha256: bytes) -> None:
        """Brings the canister's staged file to what `file` is, as far as it isn't yet."""
        start, digest = self._start(file, state, sha256)
        self.resumed += start
        self._tell()
        pieces = _pieces(file, start, digest)
        # One piece is read and hashed while the canister works on the one before it.
        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(next, pieces, None)
            while (piece := waiting.result()) is not None:
                waiting = ahead.submit(next, pieces, None)
                data, end, so_far = piece
                _expect(self.model.append(file.kind, data), end, so_far)
                self.sent += len(data)
                self._tell()

    def _start(
        self, file: SourceFile, state: FileState, sha256: bytes
    ) -> tuple[int, hashlib._Hash]:
        """Where to go on, and the hash of what lies before it."""
        staged = state.staged
        if staged is None or (staged.length == 0 and not state.stored):
            return 0, hashlib.sha256()
        whole = staged.length == file.length and staged.sha256 == sha256
        if whole or (staged.length < file.length and not state.stored):
            digest = hash_file(file.path, staged.length)
            if digest.digest() == staged.sha256:
                return staged.length, digest
        self.model.clear(file.kind)
        return 0, hashlib.sha256()

    def _tell(self) -> None:
        self.report(Step("upload", self.sent + self.resumed, self.total, self.resumed))


def _pieces(
    file: SourceFile, start: int, digest: hashlib._Hash
) -> Iterator[tuple[bytes, int, bytes]]:
    """Chunk, the length with it, and the SHA-256 with it."""
    place = start
    try:
        with file.path.open("rb") as source:
            source.seek(start)
            while place < file.length:
                data = source.read(min(CHUNK_BYTES, file.length - place))
                if not data:
                    raise CheckpointError(
                        f"{file.path} grew shorter while it was sent", "Try again."
                    )
                digest.update(data)
                place += len(data)
                yield data, place, digest.digest()
    except OSError as error:
        raise CheckpointError(f"can't read {file.path}: {error.strerror}", READABLE) from error

"""One file into a canister: chunks at offsets, several on their way at once, each sent only once.

The canister says what it is missing, so an upload that broke off goes on wherever it was. A file is
hashed before it is sent, at every chunk's end: whatever the canister says it has hashed must be
one of these, and the whole in the end.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from icgpt.checkpoint.safetensors import READABLE
from icgpt.client import ModelCanister
from icgpt.errors import CheckpointError, NetworkError, RefusedError, UploadError
from icgpt.results import FileInfo

CHUNK_BYTES: Final = 1_900_000  # with signature and framing, below the 2 MiB of a message
AT_ONCE: Final = 8  # chunks on their way; each takes some 10 MB while it is signed and sent

OnBytes = Callable[[int], None]
"""Told how many bytes more have arrived."""


@dataclass(frozen=True)
class Outgoing:
    """A file that is to be sent, and its hashes."""

    kind: str
    """"safetensors", "config", "tokenizer" or "packed"."""
    path: Path
    length: int
    sha256: bytes
    beginnings: dict[int, bytes]
    """The SHA-256 of its first bytes, by their number: at the end of every chunk."""


def outgoing(kind: str, path: Path) -> Outgoing:
    """Hashes a file."""
    digest = hashlib.sha256()
    beginnings = {}
    place = 0
    try:
        with path.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                digest.update(data)
                place += len(data)
                beginnings[place] = digest.digest()
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}", READABLE) from error
    return Outgoing(kind, path, place, digest.digest(), beginnings)


def send(
    model: ModelCanister,
    file: Outgoing,
    arrived: OnBytes,
    resumed: OnBytes,
    at_once: int = AT_ONCE,
) -> None:
    """Brings a file into the canister, as far as it isn't there, and completes it.

    Args:
        model: the canister.
        file: the file.
        arrived: told of each chunk that has arrived.
        resumed: told what was there before.
        at_once: how many chunks may be on their way.
    """
    state = model.begin(file.kind, file.length, file.sha256)
    resumed(state.arrived)
    if state.committed:
        return

    try:
        _send_chunks(model, file, state.missing, arrived, at_once)
        _check(file, model.commit(file.kind, file.sha256))
    except UploadError:
        # Which of its bytes are wrong can't be told, so the next run had better begin anew.
        with contextlib.suppress(RefusedError, NetworkError):
            model.discard(file.kind)
        raise
    except OSError as error:
        raise CheckpointError(f"can't read {file.path}: {error.strerror}", READABLE) from error


def _send_chunks(
    model: ModelCanister,
    file: Outgoing,
    missing: list[tuple[int, int]],
    arrived: OnBytes,
    at_once: int,
) -> None:
    def write(offset: int, data: bytes) -> int:
        _check(file, model.write(file.kind, offset, data))
        return len(data)

    window = _Window(at_once, arrived)
    try:
        with file.path.open("rb") as source:
            for start, end in _chunks(missing):
                source.seek(start)
                data = source.read(end - start)
                if len(data) < end - start:
                    raise CheckpointError(
                        f"{file.path} grew shorter while it was sent", "Upload again."
                    )
                window.room()
                window.add(write, start, data)
        window.finish()
    finally:
        window.close()


def _chunks(missing: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What is missing, cut at the ends of chunks."""
    for start, end in missing:
        while start < end:
            stop = min(end, (start // CHUNK_BYTES + 1) * CHUNK_BYTES)
            yield start, stop
            start = stop


def _check(file: Outgoing, info: FileInfo) -> None:
    """What the canister has hashed must be the file's beginning."""
    known = file.beginnings.get(info.length)
    if known is not None and known != info.sha256:
        raise UploadError(
            f"the first {info.length:,} bytes of {file.path} are not what has arrived",
            "The file was changed, or someone else uploads at the same time. Upload again.",
        )


class _Window:
    """Calls in threads, a few at a time. The first failure is raised, and no more are begun."""

    def __init__(self, size: int, done: OnBytes) -> None:
        self._size = size
        self._done = done
        self._pool = ThreadPoolExecutor(size, "upload")
        self._running: set[Future[int]] = set()

    def room(self) -> None:
        """Waits until another call may be begun."""
        while len(self._running) >= self._size:
            self._settle()

    def add(self, call: Callable[[int, bytes], int], offset: int, data: bytes) -> None:
        """Begins a call."""
        self._running.add(self._pool.submit(call, offset, data))

    def finish(self) -> None:
        """Waits for all."""
        while self._running:
            self._settle()

    def _settle(self) -> None:
        ended, self._running = wait(self._running, return_when=FIRST_COMPLETED)
        for one in ended:
            self._done(one.result())

    def close(self) -> None:
        """Begins none that was not begun; what is on its way arrives or not."""
        self._pool.shutdown(wait=False, cancel_futures=True)

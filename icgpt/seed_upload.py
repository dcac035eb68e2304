"""The seed's own way to upload: append calls in order, then store and load.

What an earlier, broken-off run has appended is recognised by its SHA-256 and not sent again. After
every chunk the canister answers with the length and SHA-256 of all that it has, and both must be
ours. `icgpt.sending` is faster; this one works on every canister that has the seed's interface.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from icgpt.checkpoint import hash_file
from icgpt.checkpoint.safetensors import READABLE
from icgpt.client import ModelCanister
from icgpt.errors import CheckpointError, UploadError
from icgpt.results import FileInfo, FileState
from icgpt.sending import CHUNK_BYTES, OnBytes, Outgoing


def append(
    model: ModelCanister, file: Outgoing, state: FileState, arrived: OnBytes, resumed: OnBytes
) -> None:
    """Brings the canister's staged file to what `file` is, as far as it isn't yet."""
    start, digest = _start(model, file, state)
    resumed(start)
    pieces = _pieces(file, start, digest)
    # One piece is read and hashed while the canister works on the one before it.
    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(next, pieces, None)
        while (piece := waiting.result()) is not None:
            waiting = ahead.submit(next, pieces, None)
            data, end, so_far = piece
            _expect(model.append(file.kind, data), end, so_far)
            arrived(len(data))


def seal(model: ModelCanister, files: list[Outgoing]) -> None:
    """Stores and loads what was appended; a config has no methods for that."""
    for call in (model.store, model.load):
        for file in files:
            if file.kind != "config":
                _expect(call(file.kind), file.length, file.sha256)


def _start(model: ModelCanister, file: Outgoing, state: FileState) -> tuple[int, hashlib._Hash]:
    """Where to go on, and the hash of what lies before it."""
    staged = state.staged
    if staged is None:
        return 0, hashlib.sha256()
    whole = staged.length == file.length and staged.sha256 == file.sha256
    appended = not state.stored and model.missing(file.kind) is None
    if (whole and state.stored) or (appended and staged.length <= file.length):
        digest = hash_file(file.path, staged.length)
        if digest.digest() == staged.sha256:
            return staged.length, digest
    model.clear(file.kind)
    return 0, hashlib.sha256()


def _expect(info: FileInfo, length: int, sha256: bytes) -> None:
    if info.length != length or info.sha256 != sha256:
        raise UploadError(
            f"the canister has {info.length:,} bytes with the SHA-256 {info.sha256.hex()[:12]}…, "
            f"not the {length:,} bytes with {sha256.hex()[:12]}… that were sent",
            "Someone else may be uploading at the same time. Upload again.",
        )


def _pieces(
    file: Outgoing, start: int, digest: hashlib._Hash
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

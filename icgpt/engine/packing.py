"""From a checkpoint to the packed file that a canister makes of it, byte for byte.

The engine reads, rounds and lays out a matrix at a time, so memory stays small whatever the model's
size; the file is hashed here while it is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from icgpt.checkpoint import Checkpoint
from icgpt.engine.instance import FileSource, Instance, Sink, Source
from icgpt.errors import CheckpointError, IcgptError, UsageError

BITS: Final = {"f32": 32, "int16": 16, "int8": 8}

OnBytes = Callable[[int, int], None]
"""Told how many bytes of the weights are done, and how many there are."""


@dataclass(frozen=True)
class Packed:
    """A packed file that was written."""

    path: Path
    precision: str
    length: int
    sha256: bytes
    """What a canister with the same model gives as `layout_sha256`."""


def pack(
    checkpoint: Checkpoint,
    path: Path,
    precision: str | None = None,
    report: OnBytes = lambda done, total: None,
) -> Packed:
    """Writes a checkpoint's packed file.

    Args:
        checkpoint: the model.
        path: where to; a file there is replaced once the new one is whole.
        precision: "f32", "int8" or "int16". Without it the model's own, or f32.
        report: told how far it is.
    """
    precision = precision or checkpoint.config.precision or "f32"
    digest = hashlib.sha256()
    length = 0
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        raise IcgptError(f"can't write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:

            def write(data: memoryview) -> None:
                nonlocal length
                digest.update(data)
                length += len(data)
                while len(data):
                    data = data[file.write(data) :]

            config = read_small(checkpoint, "config")
            with FileSource(checkpoint.files["safetensors"].path) as source:
                pack_weights(config, source, precision, write, report)
        Path(name).replace(path)
    except OSError as error:
        raise IcgptError(f"can't write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
    return Packed(path, precision, length, digest.digest())


def packed_length(checkpoint: Checkpoint, precision: str) -> int:
    """How long a checkpoint's packed file is, without making it."""
    instance = Instance()
    try:
        with FileSource(checkpoint.files["safetensors"].path) as instance.source:
            return _begin(instance, read_small(checkpoint, "config"), precision)[0]
    finally:
        instance.close()


def pack_weights(
    config: bytes,
    source: Source,
    precision: str,
    sink: Sink,
    report: OnBytes = lambda done, total: None,
) -> None:
    """The same for a safetensors file and a packed file that lie anywhere.

    Args:
        config: the bytes of config.json.
        source: the safetensors file.
        precision: "f32", "int8" or "int16".
        sink: takes the packed file, piece by piece, from its beginning on.
        report: told how far it is.
    """
    instance = Instance()
    try:
        instance.source, instance.sink = source, sink
        _, total = _begin(instance, config, precision)
        report(0, total)
        finished = 0
        while not finished:
            finished, answer = instance.call("pack_on")
            report(int.from_bytes(answer, "little"), total)
    finally:
        instance.close()


def _begin(instance: Instance, config: bytes, precision: str) -> tuple[int, int]:
    """Lengths of the packed file and of the weights that it is made of."""
    length = instance.source.length if instance.source else 0
    _, answer = instance.call("pack", length, bits_of(precision), data=config)
    return int.from_bytes(answer[:8], "little"), int.from_bytes(answer[8:16], "little")


def bits_of(precision: str) -> int:
    """Bits of a weight; UsageError for what is no precision."""
    if precision not in BITS:
        raise UsageError(f"there is no precision '{precision}'", f"Known: {', '.join(BITS)}.")
    return BITS[precision]


def read_small(checkpoint: Checkpoint, kind: str) -> bytes:
    """The whole of one of a checkpoint's small files, which were found sound before."""
    path = checkpoint.files[kind].path
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}") from error

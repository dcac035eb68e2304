"""One model.safetensors out of other forms, tensor by tensor: little is held in memory.

The same source gives the same bytes, so that an upload that broke off goes on where it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from icgpt.checkpoint.safetensors import READABLE, Tensor, file_pieces
from icgpt.errors import CheckpointError

_ALIGNMENT: Final = 8
SIZES: Final = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}


@dataclass(frozen=True)
class Written:
    """A tensor that is to be written; `pieces` gives its bytes, in order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[bytes]]

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return SIZES[self.dtype]

    @property
    def length(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.size


def copied(path: Path, tensor: Tensor) -> Written:
    """A tensor of a safetensors file as it is there."""

    def pieces() -> Iterator[bytes]:
        try:
            with path.open("rb") as file:
                yield from file_pieces(file, tensor.start, tensor.end)
        except OSError as error:
            raise CheckpointError(f"can't read {path}: {error.strerror}", READABLE) from error

    return Written(tensor.name, tensor.dtype, tensor.shape, pieces)


def write_safetensors(path: Path, tensors: list[Written]) -> None:
    """Writes a file; CheckpointError when there is no room for it."""
    try:
        with path.open("wb") as file:
            for piece in _all_pieces(tensors):
                file.write(piece)
    except OSError as error:
        raise CheckpointError(
            f"can't write {path}: {error.strerror}",
            "Make room there, or set ICGPT_CACHE_DIR to another folder.",
        ) from error


def _all_pieces(tensors: list[Written]) -> Iterator[bytes]:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for one in tensors:
        header[one.name] = {
            "dtype": one.dtype,
            "shape": list(one.shape),
            "data_offsets": [place, place + one.length],
        }
        place += one.length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for one in tensors:
        yield from one.pieces()

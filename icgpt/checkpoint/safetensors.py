"""The header of a .safetensors file, read with suspicion: it comes from anywhere.

Layout: 8 bytes little-endian header length, that many bytes of JSON {name: {dtype, shape,
data_offsets}}, then the tensors' bytes without gaps. https://github.com/huggingface/safetensors
Nothing but the header is held in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from icgpt.errors import CheckpointError, quoted

MAX_HEADER_BYTES: Final = 16 << 20
MAX_TENSORS: Final = 100_000
MAX_DIMENSIONS: Final = 8
_READ_BYTES: Final = 4 << 20
_SIZES: Final = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "F64": 8,
    "I64": 8,
    "U64": 8,
}
# Where all exponent bits are set, a float is infinite or no number: (integer type, those bits).
_EXPONENTS: Final = {
    "F32": ("<u4", 0x7F800000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}

# How NumPy reads the floats of a file; it has no bfloat16, the upper half of a float32.
FLOATS: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def to_float32(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Numbers of a file, read as FLOATS says, in float32; of the same shape."""
    if dtype == "BF16":
        return (stored.astype("<u4") << 16).view("<f4")
    return stored.astype("<f4")


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: `start` and `end` count from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, by name; CheckpointError says what is wrong with it otherwise."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            lead = file.read(8)
            if len(lead) < 8:
                raise CheckpointError(f"{path.name} is cut off: it has {size} bytes", _AGAIN)
            length = int.from_bytes(lead, "little")
            if length > MAX_HEADER_BYTES:
                raise _foreign(path, length)
            text = file.read(length)
            if len(text) < length:
                # What is cut off begins well; what does not is a file of another kind.
                if text and not text.startswith(b"{"):
                    raise _foreign(path, length)
                raise CheckpointError(f"{path.name} is cut off within its header", _AGAIN)
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}", READABLE) from error
    tensors = _parse(text, path.name, 8 + length, size)
    _check_layout(tensors, path.name, 8 + length, size)
    return tensors


_AGAIN = "Download or copy it again."
READABLE = "Check that the file is there and may be read."


def _foreign(path: Path, length: int) -> CheckpointError:
    return CheckpointError(
        f"{path.name} is no safetensors file: its header would have {length:,} bytes",
        "Save the model in that form: save_pretrained(FOLDER) of transformers does.",
    )


def _parse(text: bytes, name: str, begin: int, size: int) -> dict[str, Tensor]:
    try:
        header = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the header of {name} is damaged: {error}", _AGAIN) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"the header of {name} is no JSON object", _AGAIN)
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise CheckpointError(
            f"{name} has {len(header):,} tensors; at most {MAX_TENSORS:,} are read", _AGAIN
        )
    return {key: _tensor(key, entry, name, begin) for key, entry in header.items()}


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _tensor(key: str, entry: Any, name: str, begin: int) -> Tensor:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, end]}:
            pass
        case _:
            raise CheckpointError(f"{name}: tensor {quoted(key)} has a malformed entry", _AGAIN)
    numbers = [*shape, start, end]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise CheckpointError(
            f"{name}: tensor {quoted(key)} has a malformed shape or place", _AGAIN
        )
    if dtype not in _SIZES:
        raise CheckpointError(
            f"{name}: tensor {quoted(key)} has the unknown type {quoted(dtype)}",
            f"Known: {', '.join(_SIZES)}.",
        )
    if len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"{name}: tensor {quoted(key)} has {len(shape):,} dimensions", _AGAIN)
    if end - start != math.prod(shape) * _SIZES[dtype]:
        raise CheckpointError(
            f"{name}: tensor {quoted(key)} of shape {quoted(shape)} and type {dtype} can't have "
            f"{quoted(end - start)} bytes",
            _AGAIN,
        )
    return Tensor(key, dtype, tuple(shape), begin + start, begin + end)


def _check_layout(tensors: dict[str, Tensor], name: str, begin: int, size: int) -> None:
    """Tensors must follow each other to the file's very end, as the format demands."""
    place = begin
    for tensor in sorted(tensors.values(), key=lambda one: (one.start, one.end)):
        if tensor.start != place:
            word = "overlaps another" if tensor.start < place else "leaves a gap before it"
            raise CheckpointError(f"{name}: tensor {quoted(tensor.name)} {word}", _AGAIN)
        place = tensor.end
    if place > size:
        raise CheckpointError(f"{name} is cut off: {size:,} bytes of {place:,} are there", _AGAIN)
    if place < size:
        raise CheckpointError(f"{name} has {size - place:,} bytes that belong to no tensor", _AGAIN)


def check_finite(path: Path, tensors: list[Tensor]) -> None:
    """Raises when a weight is infinite or not a number; reads the file in pieces."""
    try:
        with path.open("rb") as file:
            for tensor in tensors:
                if tensor.dtype in _EXPONENTS:
                    _check_tensor(file_pieces(file, tensor.start, tensor.end), tensor, path.name)
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}", READABLE) from error


def _check_tensor(pieces: Iterator[bytes], tensor: Tensor, name: str) -> None:
    kind, exponent = _EXPONENTS[tensor.dtype]
    for piece in pieces:
        words = np.frombuffer(piece, dtype=kind)
        if bool(((words & exponent) == exponent).any()):
            raise CheckpointError(
                f"{name}: tensor {quoted(tensor.name)} holds a weight that is not a finite number",
                "The training has diverged or the file is damaged; use another checkpoint.",
            )


def file_pieces(file: Any, start: int, end: int) -> Iterator[bytes]:
    """The bytes from `start` to `end` in pieces that fit memory."""
    file.seek(start)
    left = end - start
    while left:
        piece = file.read(min(left, _READ_BYTES))
        if not piece:
            raise CheckpointError("the file grew shorter while it was read", "Try again.")
        left -= len(piece)
        yield piece

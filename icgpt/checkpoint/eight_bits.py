"""Checkpoints in eight bits: of each matrix the whole numbers of a byte, and a scale an output.

They lie in a safetensors file as compressed-tensors lays them: a tensor in I8, and beside it
NAME_scale in F32, [1][outputs] or [outputs][1] as the matrix lies; a weight is their product. The
numbers are those that the engine makes of a model in int8, which therefore loses nothing when it
is kept so. Vectors and positions stay as they are. Read and written in pieces.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from icgpt.checkpoint.config import check_tensors
from icgpt.checkpoint.model_files import FILE_NAMES, Checkpoint
from icgpt.checkpoint.safetensors import FLOATS, Tensor, read_header, to_float32
from icgpt.checkpoint.writing import Written, copied, write_safetensors
from icgpt.errors import CheckpointError, quoted

DTYPE: Final = "I8"
_LARGEST: Final = 127
_LEAST_SCALE: Final = 1e-36  # weights below are all as good as zero
_SUFFIX: Final = "_scale"
_PIECE_BYTES: Final = 4 << 20
_AGAIN: Final = "Make it again: icgpt convert MODEL --precision int8 --out FOLDER."

Floats = NDArray[np.float32]


def is_eight_bits(header: dict[str, Tensor]) -> bool:
    """Whether a file has such matrices."""
    return any(one.dtype == DTYPE for one in header.values())


def widened(path: Path, header: dict[str, Tensor]) -> dict[str, Written]:
    """All tensors of such a file, the matrices in F32."""
    scales = {name + _SUFFIX for name, one in header.items() if one.dtype == DTYPE}
    return {
        name: _widened(path, one, header.get(name + _SUFFIX))
        if one.dtype == DTYPE
        else copied(path, one)
        for name, one in header.items()
        if name not in scales
    }


def _widened(path: Path, numbers: Tensor, scale: Tensor | None) -> Written:
    fitting = [(1, *numbers.shape[1:]), (*numbers.shape[:1], 1)]
    if len(numbers.shape) != 2 or scale is None or scale.shape not in fitting:
        raise CheckpointError(
            f"{path.name}: tensor {quoted(numbers.name)} is in I8 and has no scale of its shape",
            _AGAIN,
        )
    if scale.dtype != "F32":
        raise CheckpointError(f"{path.name}: tensor {quoted(scale.name)} is not in F32", _AGAIN)

    def pieces() -> Iterator[bytes]:
        factors = np.memmap(path, "<f4", "r", scale.start, scale.shape)
        whole = np.memmap(path, "i1", "r", numbers.start, numbers.shape)
        for rows in _slices(numbers.shape):
            factor = factors if scale.shape[0] == 1 else factors[rows]
            with np.errstate(invalid="ignore"):  # what is not finite is found when all is there
                yield (whole[rows].astype("<f4") * factor).tobytes()

    return Written(numbers.name, "F32", numbers.shape, pieces)


def write_eight_bits(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes a model in eight bits into a folder, with the other files that it is made of."""
    weights = checkpoint.files["safetensors"].path
    tensors: list[Written] = []
    for one in check_tensors(checkpoint.config, read_header(weights)):
        if len(one.shape) == 2 and not one.name.endswith("wpe.weight"):
            by_columns = checkpoint.config.family == "gpt2" and "h." in one.name
            tensors += _narrowed(weights, one, by_columns)
        else:
            tensors.append(copied(weights, one))
    # Wide elements first, so that all lie where their sizes want them.
    tensors.sort(key=lambda one: (-one.size, one.name))
    config = json.loads(checkpoint.files["config"].path.read_bytes())
    config["icgpt"] = {**(config.get("icgpt") or {}), "precision": "int8"}
    (folder / FILE_NAMES["config"]).write_text(json.dumps(config, indent=2) + "\n")
    if "tokenizer" in checkpoint.files:
        words = checkpoint.files["tokenizer"].path.read_bytes()
        (folder / FILE_NAMES["tokenizer"]).write_bytes(words)
    write_safetensors(folder / FILE_NAMES["safetensors"], tensors)


def _narrowed(path: Path, matrix: Tensor, by_columns: bool) -> list[Written]:
    """The numbers and the scales of a matrix whose outputs are its columns, or its rows."""

    @functools.cache
    def scales() -> Floats:
        if by_columns:
            highest = [np.abs(rows).max(axis=0, keepdims=True) for rows in _rows(path, matrix)]
            largest = np.max(highest, axis=0)
        else:
            largest = np.concatenate(
                [np.abs(rows).max(axis=1, keepdims=True) for rows in _rows(path, matrix)]
            )
        found: Floats = (largest / np.float32(_LARGEST)).astype("<f4")
        return found

    def numbers() -> Iterator[bytes]:
        with np.errstate(divide="ignore"):
            inverse = np.where(scales() < _LEAST_SCALE, np.float32(0), np.float32(1) / scales())
        at = 0
        for rows in _rows(path, matrix):
            factor = inverse if by_columns else inverse[at : at + len(rows)]
            yield np.rint(rows * factor).astype("i1").tobytes()
            at += len(rows)

    shape = (1, matrix.shape[1]) if by_columns else (matrix.shape[0], 1)
    return [
        Written(matrix.name, DTYPE, matrix.shape, numbers),
        Written(matrix.name + _SUFFIX, "F32", shape, lambda: [scales().tobytes()]),
    ]


def _rows(path: Path, matrix: Tensor) -> Iterator[Floats]:
    """A matrix in pieces of whole rows, in float32."""
    whole: NDArray[Any] = np.memmap(path, FLOATS[matrix.dtype], "r", matrix.start, matrix.shape)
    for rows in _slices(matrix.shape):
        yield to_float32(whole[rows], matrix.dtype)


def _slices(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, _PIECE_BYTES // (4 * shape[1]))
    return (slice(start, start + step) for start in range(0, shape[0], step))

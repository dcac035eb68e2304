"""Weights in other forms into one model.safetensors: files of torch.save, and parts of a model.

What is written has transformers' names and layout, only the tensors that the model is made of, and
the types that the canister reads.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from icgpt.checkpoint.config import Config, check_tensors, parse_config
from icgpt.checkpoint.eight_bits import is_eight_bits, widened
from icgpt.checkpoint.labels import over_labels
from icgpt.checkpoint.pickles import PickledTensor
from icgpt.checkpoint.safetensors import READABLE, Tensor, read_header
from icgpt.checkpoint.state_dict import StateDict, find_state_dict
from icgpt.checkpoint.torch_files import TorchFile, read_torch_file
from icgpt.checkpoint.writing import SIZES, Written, copied, write_safetensors
from icgpt.errors import CheckpointError, quoted

MAX_INDEX_BYTES: Final = 16 << 20
MAX_PARTS: Final = 1000
_PIECE_BYTES: Final = 4 << 20
_DTYPES: Final = {"float32": "F32", "float64": "F32", "float16": "F16", "bfloat16": "BF16"}
_HEAD: Final = "lm_head.weight"
_COMPLETE: Final = "Download or copy it again, all of its files."


def torch_weights(path: Path) -> StateDict[Written]:
    """The weights in a file of torch.save."""
    file = read_torch_file(path)
    state = find_state_dict(file.content, path.name)
    tensors = {}
    for name, tensor in state.tensors.items():
        if name == _HEAD and _is_embedding(file, tensor, state.tensors):
            continue  # tied: the same numbers under two names
        tensors[name] = _from_torch(file, name, tensor, state.turned(name))
    return StateDict(tensors, state.said, was_turned=state.linear)


def safetensors_weights(path: Path) -> StateDict[Written]:
    """The weights in a safetensors file."""
    header = read_header(path)
    if is_eight_bits(header):
        return StateDict(widened(path, header), {})
    state = StateDict(header, {})
    tensors = {
        name: _from_safetensors(path, one, state.turned(name))
        for name, one in state.tensors.items()
    }
    return StateDict(tensors, {}, was_turned=state.linear)


def indexed_weights(index: Path) -> StateDict[Written]:
    """The weights in the several files that an index names."""
    tensors: dict[str, Written] = {}
    parts: dict[str, list[str]] = {}
    for name, part in _weight_map(index).items():
        parts.setdefault(part, []).append(name)
    if len(parts) > MAX_PARTS:
        raise CheckpointError(f"{index.name} names {len(parts):,} files", _COMPLETE)
    for part, names in parts.items():
        path = index.parent / part
        read = safetensors_weights if path.suffix == ".safetensors" else torch_weights
        found = read(path).tensors
        for name in names:
            if name in found:
                tensors[name] = found[name]
            elif name != _HEAD:
                raise CheckpointError(f"{part} has no tensor {quoted(name)}", _COMPLETE)
    return StateDict(tensors, {})


def _weight_map(index: Path) -> dict[str, str]:
    try:
        with index.open("rb") as file:
            data = file.read(MAX_INDEX_BYTES + 1)
        raw = json.loads(data) if len(data) <= MAX_INDEX_BYTES else None
    except OSError as error:
        raise CheckpointError(f"can't read {index}: {error.strerror}", READABLE) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{index.name} is not valid JSON: {error}", _COMPLETE) from error
    found = raw.get("weight_map") if isinstance(raw, dict) else None
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{index.name} has no weight_map", _COMPLETE)
    for part in found.values():
        # Parts lie beside their index, and nowhere else.
        if not isinstance(part, str) or Path(part).name != part or part in ("", ".", ".."):
            raise CheckpointError(f"{index.name} names a file in another folder", _COMPLETE)
    return found


def assemble(
    weights: StateDict[Written],
    config: bytes | None,
    model_name: str | None,
    labels: bool,
    folder: Path,
) -> tuple[Path, Path]:
    """Writes model.safetensors and config.json into a folder; their paths.

    Args:
        weights: from one of the functions above.
        config: config.json, where there is one.
        model_name: the published model that the weights are of, where nothing tells.
        labels: whether the layer over labels takes the place of that over tokens.
        folder: where to write.
    """
    raw: dict[str, Any]
    if config is None:
        raw = weights.config(model_name)
    else:
        parse_config(config)
        raw = json.loads(config)
    if labels:
        weights, raw = over_labels(weights, raw)
    if _HEAD in weights.tensors and raw.get("model_type", "gpt2") == "gpt2":
        raw = {**raw, "tie_word_embeddings": False}
    text = json.dumps(raw, indent=2).encode() + b"\n"
    used = _used(parse_config(text), weights)
    paths = folder / "model.safetensors", folder / "config.json"
    paths[1].write_bytes(text)
    write_safetensors(paths[0], used)
    return paths


def _used(config: Config, weights: StateDict[Written]) -> list[Written]:
    shown = {n: Tensor(n, one.dtype, one.shape, 0, 0) for n, one in weights.tensors.items()}
    return [weights.tensors[one.name] for one in check_tensors(config, shown)]


# --- Tensors


def _from_torch(file: TorchFile, name: str, tensor: PickledTensor, turned: bool) -> Written:
    dtype = _DTYPES.get(tensor.dtype, tensor.dtype or "unknown")
    read = functools.partial(file.array, tensor)
    return _written(name, dtype, tensor.shape, read, turned)


def _from_safetensors(path: Path, tensor: Tensor, turned: bool) -> Written:
    if not turned:
        return copied(path, tensor)
    kind = {4: "<f4", 2: "<u2"}.get(SIZES.get(tensor.dtype, 0), "u1")

    def read() -> NDArray[Any]:
        return np.memmap(path, kind, "r", tensor.start, tensor.shape)

    return _written(tensor.name, tensor.dtype, tensor.shape, read, turned)


def _written(name: str, dtype: str, shape: tuple[int, ...], read: Any, turned: bool) -> Written:
    def pieces() -> Iterator[bytes]:
        array = read()
        array = array.T if turned else array
        rows = max(1, _PIECE_BYTES // max(1, array[:1].nbytes)) if array.ndim else 1
        for start in range(0, array.shape[0] if array.ndim else 1, rows):
            piece = array[start : start + rows] if array.ndim else array
            if piece.dtype == np.dtype("<f8"):
                piece = piece.astype("<f4")
            yield np.ascontiguousarray(piece).tobytes()

    return Written(name, dtype, shape[::-1] if turned else shape, pieces)


def _is_embedding(file: TorchFile, head: PickledTensor, tensors: dict[str, PickledTensor]) -> bool:
    """Whether the head's numbers are those of the token embedding."""
    for name in ("transformer.wte.weight", "wte.weight"):
        if (embedding := tensors.get(name)) is not None:
            if head == embedding:
                return True
            if (head.shape, head.dtype) != (embedding.shape, embedding.dtype):
                return False
            return bool(np.array_equal(file.array(head), file.array(embedding)))
    return False

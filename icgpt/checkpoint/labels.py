"""Classifiers: a trunk with a layer over labels, such as GPT2ForSequenceClassification.

An engine knows one layer behind the trunk, that over tokens. A classifier's checkpoint has the
labels in its place: token id 0 stands for the first label, and what follows the last label is
nothing. So the log-probabilities of ids 0, 1, … after a text tell the labels' probabilities, in a
canister as in this process. config.json keeps the labels' names, and what is added to each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from icgpt.checkpoint.config import MAX_CONFIG_BYTES
from icgpt.checkpoint.model_files import Checkpoint, read_small
from icgpt.checkpoint.safetensors import FLOATS, to_float32
from icgpt.checkpoint.state_dict import LABEL_HEADS, StateDict
from icgpt.checkpoint.writing import Written
from icgpt.errors import CheckpointError

MAX_LABELS: Final = 1000
_HEAD: Final = "lm_head"
_NAMES, _ADDED = "id2label", "label_bias"
_PIECE_BYTES: Final = 1 << 20


class NoLabelsError(CheckpointError):
    """A model that writes, and has no layer over labels."""

    kind = "no_labels"

    def __init__(self) -> None:
        super().__init__(
            "the model has no layer over labels",
            f"A classifier has one, such as {LABEL_HEADS[0]}.weight of "
            "GPT2ForSequenceClassification.",
        )


@dataclass(frozen=True)
class Label:
    """What a classifier can say."""

    name: str
    added: float
    """Is added to what the engine gives for it."""


def labels_of(checkpoint: Checkpoint) -> list[Label]:
    """The labels of a checkpoint that was opened as a classifier, in the order of their ids."""
    raw = json.loads(read_small(checkpoint.files["config"], MAX_CONFIG_BYTES))
    return [Label(raw[_NAMES][str(n)], added) for n, added in enumerate(raw[_ADDED])]


def over_labels(
    weights: StateDict[Written], config: dict[str, Any]
) -> tuple[StateDict[Written], dict[str, Any]]:
    """Weights and config.json with the labels where the tokens were; NoLabelsError without any."""
    head = next((weights.tensors[n] for n in _names("weight") if _is_head(weights, n)), None)
    if head is None:
        raise NoLabelsError
    layer = head.name.removesuffix(".weight")
    count, vocabulary = head.shape[0], config["vocab_size"]
    bias = weights.tensors.get(f"{layer}.bias")
    added = [0.0] * count if bias is None else _floats(bias, count)
    trunk = {n: one for n, one in weights.tensors.items() if not n.startswith(f"{_HEAD}.")}
    trunk[f"{_HEAD}.weight"] = _longer(head, vocabulary)
    if config.get("model_type") == "gptj":  # its layer over tokens has a bias
        nothing = Written("", "F32", (0,), lambda: iter(()))
        trunk[f"{_HEAD}.bias"] = _longer(nothing, vocabulary, "bias")
    told = config.get(_NAMES)
    told = told if isinstance(told, dict) else {}
    names = {str(n): str(told.get(str(n), f"LABEL_{n}")) for n in range(count)}
    changed = {**config, "tie_word_embeddings": False, _NAMES: names, _ADDED: added}
    return StateDict(trunk, weights.said, weights.was_turned), changed


def _names(end: str) -> list[str]:
    return [f"{layer}.{end}" for layer in (*LABEL_HEADS, _HEAD)]


def _is_head(weights: StateDict[Written], name: str) -> bool:
    """Whether a tensor is over labels; what is over tokens has a row for each of them."""
    tensor = weights.tensors.get(name)
    if tensor is None or len(tensor.shape) != 2 or tensor.dtype not in FLOATS:
        return False
    count, wide = tensor.shape
    most = min(MAX_LABELS, weights.vocabulary - 1)
    return 2 <= count <= most and wide == weights.wide


def _longer(tensor: Written, rows: int, end: str = "weight") -> Written:
    """A tensor with rows of zeros behind its own."""
    shape = (rows, *tensor.shape[1:])
    full = Written(f"{_HEAD}.{end}", tensor.dtype, shape, tensor.pieces)

    def pieces() -> Iterator[bytes]:
        yield from tensor.pieces()
        left = full.length - tensor.length
        while left:
            yield bytes(min(left, _PIECE_BYTES))
            left -= min(left, _PIECE_BYTES)

    return Written(full.name, full.dtype, shape, pieces)


def _floats(tensor: Written, count: int) -> list[float]:
    if tensor.shape != (count,) or tensor.dtype not in FLOATS:
        raise CheckpointError(
            f"'{tensor.name}' does not fit the labels", "Use the files of one and the same model."
        )
    stored = np.frombuffer(b"".join(tensor.pieces()), FLOATS[tensor.dtype])
    numbers = to_float32(stored, tensor.dtype)
    if not np.isfinite(numbers).all():
        raise CheckpointError(f"'{tensor.name}' has numbers that are not finite")
    return [float(one) for one in numbers]

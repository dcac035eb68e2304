"""Whole models that torch.save has pickled, read as data: no class of theirs is imported.

A module of PyTorch is pickled as its attributes. Its parameters lie under `_parameters`, the
modules within it under `_modules`, and what is known of the model under `config`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from icgpt.checkpoint.pickles import Foreign, PickledTensor

MAX_DEPTH: Final = 32
MAX_MODULES: Final = 100_000


def parameters(model: Foreign) -> dict[str, PickledTensor]:
    """A model's parameters as its state dict names them; none of what is no module."""
    return dict(_parameters(model))


def _parameters(model: Foreign) -> Iterator[tuple[str, PickledTensor]]:
    waiting = [("", model, 0)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return
        prefix, module, depth = waiting.pop()
        for name, one in _dict(module, "_parameters").items():
            if isinstance(one, PickledTensor):
                yield f"{prefix}{name}", one
        if depth < MAX_DEPTH:  # a pickle may put a module within itself
            for name, one in _dict(module, "_modules").items():
                if isinstance(one, Foreign):
                    waiting.append((f"{prefix}{name}.", one, depth + 1))


def _dict(module: Foreign, key: str) -> dict[object, object]:
    found = module.state.get(key)
    return found if isinstance(found, dict) else {}

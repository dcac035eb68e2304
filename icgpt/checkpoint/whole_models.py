"""Whole models whose classes pickle themselves: read by PyTorch itself, on the user's word alone.

Such a file names classes and functions, and unpickling it calls them: whoever made it can run what
they like. Nothing here happens without --trust-pickle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from icgpt.errors import CheckpointError, UsageError

_SIZES: Final = ("n_layer", "n_head", "n_embd", "block_size")
_OWN: Final = "Load it where its own code is, and save model.state_dict() instead."


def unpickled(path: Path, folder: Path) -> Path:
    """Unpickles what `path` holds and saves its state dict in `folder`; the path to that."""
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            "a whole model is read by PyTorch", "Install it with: pip install 'icgpt[train]'"
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    # Its classes may raise whatever they like.
    except Exception as error:
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path.name} can't be unpickled: {words[:200]}", _OWN) from error
    model = content.get("model", content) if isinstance(content, dict) else content
    state = model.state_dict() if hasattr(model, "state_dict") else model
    said: dict[str, Any] = {"model": state}
    config = getattr(model, "config", None)
    if config is not None:
        said["config"] = {key: getattr(config, key) for key in _SIZES if hasattr(config, key)}
    elif isinstance(content, dict) and isinstance(content.get("model_args"), dict):
        said["model_args"] = content["model_args"]
    made = folder / f"unpickled{path.suffix}"
    torch.save(said, made)
    return made

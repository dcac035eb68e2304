"""Models of the Hugging Face hub: what a model's files are, and where they lie once fetched.

Uses huggingface_hub (the extra `hub`), and so its cache, its token (HF_TOKEN, or as
`hf auth login` leaves it) and HF_ENDPOINT. What is in the cache is used when the hub can't be
reached. Only the files that a model is made of are fetched, safetensors before pickles.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from icgpt.errors import CheckpointError, NetworkError, UsageError

_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_SMALL: Final = (
    "config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)
# The first of these that a model has is taken, with the parts that it names.
_WEIGHTS: Final = (
    ("model.safetensors", "model.safetensors"),
    ("model.safetensors.index.json", "model-*-of-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin"),
    ("pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"),
)


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of a model's id on the hub: owner/name."""
    return _ID.fullmatch(text) is not None and ".." not in text


def fetch_model(model_id: str, revision: str | None = None) -> Path:
    """The folder of a model's files, fetched as far as they aren't in the cache."""
    hub = _library(model_id)
    endpoint = os.environ.get("HF_ENDPOINT") or None
    cache = os.environ.get("HF_HUB_CACHE") or None
    common: dict[str, Any] = {"revision": revision, "cache_dir": cache, "endpoint": endpoint}
    try:
        info = hub.HfApi(endpoint=endpoint).model_info(model_id, revision=revision)
        wanted = _wanted(model_id, [one.rfilename for one in info.siblings or []])
        return Path(hub.snapshot_download(model_id, allow_patterns=wanted, **common))
    except _refusals(hub) as error:
        return _otherwise(hub, model_id, common, error)


def fetch_file(model_id: str, name: str) -> Path | None:
    """One file of a model; None when it can't be had."""
    try:
        hub = _library(model_id)
    except UsageError:
        return None
    endpoint = os.environ.get("HF_ENDPOINT") or None
    cache = os.environ.get("HF_HUB_CACHE") or None
    try:
        return Path(hub.hf_hub_download(model_id, name, endpoint=endpoint, cache_dir=cache))
    except _refusals(hub):
        return None


def _library(model_id: str) -> Any:
    try:
        library = import_module("huggingface_hub")
        utilities = import_module("huggingface_hub.utils")
        import_module("huggingface_hub.errors")
    except ImportError as error:
        raise UsageError(
            f"fetching {model_id} needs huggingface_hub",
            "Install it with: pip install 'icgpt[hub]'",
        ) from error
    if not sys.stderr.isatty():
        utilities.disable_progress_bars()
    return library


def _wanted(model_id: str, names: Iterable[str]) -> list[str]:
    there = set(names)
    for name, parts in _WEIGHTS:
        if name in there:
            return [*_SMALL, name, parts]
    raise CheckpointError(
        f"{model_id} has no weights that we read: {', '.join(sorted(there)[:8]) or 'no files'}",
        "Models need model.safetensors or pytorch_model.bin.",
    )


def _refusals(hub: Any) -> tuple[type[BaseException], ...]:
    """What the library raises when the hub refuses or can't be reached."""
    # Its versions are built on different HTTP libraries, whose errors its own one derives from.
    plain = (object, BaseException, Exception)
    derived = [one for one in hub.errors.HfHubHTTPError.__mro__ if one not in plain]
    return (*derived, OSError, ValueError)


def _otherwise(hub: Any, model_id: str, common: dict[str, Any], error: BaseException) -> Path:
    """The model from the cache where the hub can't be reached; a typed error where it refuses."""
    errors = hub.errors
    if isinstance(error, errors.GatedRepoError):
        raise CheckpointError(
            f"{model_id} is given only to those who ask for it",
            "Ask on its page, then set HF_TOKEN to your token.",
        ) from error
    if isinstance(error, errors.RevisionNotFoundError):
        raise CheckpointError(
            f"{model_id} has no revision '{common['revision']}'",
            "Name a branch, tag or commit of it with --revision.",
        ) from error
    if isinstance(error, errors.RepositoryNotFoundError):
        raise CheckpointError(
            f"there is no model {model_id} on the hub, or it is private",
            "Compare its name with the one on huggingface.co; a private one needs HF_TOKEN.",
        ) from error
    for name, parts in _WEIGHTS:
        try:
            folder = hub.snapshot_download(
                model_id, local_files_only=True, allow_patterns=[*_SMALL, name, parts], **common
            )
        except (errors.LocalEntryNotFoundError, OSError, ValueError):
            continue
        if (Path(folder) / name).is_file():
            return Path(folder)
    words = str(error).splitlines() or [type(error).__name__]
    raise NetworkError(
        f"{model_id} can't be fetched: {words[0][:200]}",
        "Is this machine online? A folder or file with the model works without.",
    ) from error

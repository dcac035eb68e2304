"""The folder that a run leaves, as `icgpt upload`, transformers and tokenizers read it.

model.safetensors holds float16: half the bytes of float32, at a cost of about 0.00001 in the
loss of the model in the box. Whatever reads it computes in float32 again. vocabulary.json and
model_args.json say the same as tokenizer.json and config.json in the way small models' code does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from icgpt.files import write_atomically
from icgpt.train.errors import OutputError, ResumeError
from icgpt.train.presets import Settings
from icgpt.train.vocabulary import Vocabulary

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
VOCABULARY_FILE = "vocabulary.json"
ARGUMENTS_FILE = "model_args.json"
CARD_FILE = "README.md"
STATE_FILE = "state.pt"  # only while a run is not over: icgpt.train.state

Weights = dict[str, NDArray[np.float16]]


def config_json(s: Settings, vocab_size: int) -> dict[str, Any]:
    """The configuration as transformers' GPT2Config names it, plus our own block `icgpt`."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": s.activation,
        "attn_pdrop": 0.0,
        "bos_token_id": None,
        "embd_pdrop": s.dropout,
        "eos_token_id": None,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-5,
        "n_ctx": s.n_ctx,
        "n_embd": s.n_embd,
        "n_head": s.n_head,
        "n_inner": 4 * s.n_embd,
        "n_layer": s.n_layer,
        "n_positions": s.n_ctx,
        "resid_pdrop": s.dropout,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "vocab_size": vocab_size,
        "icgpt": {"context": "slide"},
    }


def arguments_json(s: Settings, vocab_size: int) -> dict[str, Any]:
    """The model's sizes, as nanoGPT names them."""
    return {
        "n_layer": s.n_layer,
        "n_head": s.n_head,
        "n_embd": s.n_embd,
        "block_size": s.n_ctx,
        "bias": True,
        "vocab_size": vocab_size,
        "dropout": s.dropout,
    }


def open_folder(folder: Path, resume: bool = False) -> None:
    """Make the folder, and find out before the training whether it can be written."""
    # The card comes last. A run that was killed before its first state begins again.
    over = (folder / CARD_FILE).exists() and not (folder / STATE_FILE).exists()
    if (folder / MODEL_FILE).exists() and (over or not resume):
        raise OutputError(
            f"{folder} holds a model already",
            "It is complete: choose another --out FOLDER, or remove it."
            if over
            else "Choose another --out FOLDER, or remove it; --resume goes on with the run.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".writable", b"")
        (folder / ".writable").unlink()
        for path in (*folder.glob(".*.*.????????"), *folder.glob("log/.*.*.????????")):
            path.unlink()  # what a killed run left half-written
    except OSError as error:
        raise unwritable(folder, error) from error


def write_model(folder: Path, s: Settings, vocabulary: Vocabulary, weights: Weights) -> None:
    """Write the files that make a model."""
    tokenizer = vocabulary.tokenizer_json()
    files = {
        CONFIG_FILE: config_json(s, vocabulary.size),
        ARGUMENTS_FILE: arguments_json(s, vocabulary.size),
        VOCABULARY_FILE: tokenizer["model"]["vocab"],
        TOKENIZER_FILE: tokenizer,
    }
    try:
        for name, content in files.items():
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            write_atomically(folder / name, text.encode())
        # Last: a folder with weights is a whole model.
        write_atomically(folder / MODEL_FILE, save(weights, {"format": "pt"}))
    except OSError as error:
        raise unwritable(folder, error) from error


def read_model(folder: Path) -> Weights:
    """The weights that a run wrote before it was broken off."""
    try:
        return load((folder / MODEL_FILE).read_bytes())
    except Exception as error:
        raise ResumeError(
            f"{folder / MODEL_FILE} can't be read: {str(error)[:200]}",
            "Remove the folder and start again.",
        ) from error


def write_card(folder: Path, card: str) -> None:
    """Write the model card beside the model."""
    try:
        write_atomically(folder / CARD_FILE, card.encode())
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: Exception) -> OutputError:
    """What to say where a folder takes nothing."""
    why = getattr(error, "strerror", None) or str(error).split("\n")[0]
    return OutputError(
        f"{folder} cannot be written: {why}", "Free some space or choose another --out FOLDER."
    )

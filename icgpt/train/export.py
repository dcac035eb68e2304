"""Write a trained model as the folder that `icgpt upload`, transformers and tokenizers read.

model.safetensors holds float16: half the bytes of float32, at a cost of about 0.00001 in the
loss of the model in the box. Whatever reads it computes in float32 again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from icgpt.files import write_atomically
from icgpt.train.errors import OutputError
from icgpt.train.presets import Settings

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "README.md"
LOG_FILE = "log.jsonl"

Weights = dict[str, NDArray[np.float16]]


def config_json(s: Settings, vocab_size: int) -> dict[str, Any]:
    """The configuration as transformers' GPT2Config names it, plus our own block `icgpt`."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
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


def tokenizer_json(alphabet: str) -> dict[str, Any]:
    """One token a character: BPE without merges, nothing normalised or split before."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: i for i, character in enumerate(alphabet)},
            "merges": [],
        },
    }


def open_folder(folder: Path) -> None:
    """Make the folder, and find out before the training whether it can be written."""
    if (folder / MODEL_FILE).exists():
        raise OutputError(
            f"{folder} holds a model already", "Choose another --out FOLDER, or remove it."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / LOG_FILE, b"")
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_model(folder: Path, s: Settings, alphabet: str, weights: Weights) -> None:
    """Write the three files that make a model."""
    config = json.dumps(config_json(s, len(alphabet)), indent=2) + "\n"
    tokenizer = json.dumps(tokenizer_json(alphabet), indent=1, ensure_ascii=False) + "\n"
    try:
        write_atomically(folder / CONFIG_FILE, config.encode())
        write_atomically(folder / TOKENIZER_FILE, tokenizer.encode())
        # Last: a folder with weights is a whole model.
        write_atomically(folder / MODEL_FILE, save(weights, {"format": "pt"}))
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_card(folder: Path, card: str) -> None:
    """Write the model card beside the model."""
    try:
        write_atomically(folder / CARD_FILE, card.encode())
    except OSError as error:
        raise _unwritable(folder, error) from error


def append_log(folder: Path, entry: dict[str, float]) -> None:
    """Add a JSON line to the log of the run."""
    try:
        with (folder / LOG_FILE).open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
            log.flush()
            os.fsync(log.fileno())
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder} cannot be written: {error.strerror or error}",
        "Free some space or choose another --out FOLDER.",
    )

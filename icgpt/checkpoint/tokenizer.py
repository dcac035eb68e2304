"""tokenizer.json: a quick look before it is sent. The canister reads it for good.

What is looked for: valid JSON, a vocabulary, and no id that the model has no embedding for.
"""

from __future__ import annotations

import json
from typing import Any, Final

from icgpt.errors import CheckpointError, quoted

MAX_TOKENIZER_BYTES: Final = 32 << 20
_RIGHT_ONE: Final = "Use the tokenizer.json that belongs to the model."


def check_tokenizer(data: bytes, vocab_size: int) -> int:
    """The largest id of a tokenizer; CheckpointError when the model's vocabulary lacks it."""
    if len(data) > MAX_TOKENIZER_BYTES:
        raise CheckpointError(
            f"tokenizer.json has {len(data):,} bytes, too many for what it is", _RIGHT_ONE
        )
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"tokenizer.json is not valid JSON: {error}", _RIGHT_ONE) from error
    ids = _ids(raw)
    if not ids:
        raise CheckpointError(
            "tokenizer.json has no vocabulary", "It must be of the `tokenizers` library's form."
        )
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in ids):
        raise CheckpointError("tokenizer.json has a malformed id in its vocabulary", _RIGHT_ONE)
    largest = max(ids)
    if largest >= vocab_size:
        raise CheckpointError(
            f"tokenizer.json has the id {quoted(largest)}, and the model only {vocab_size} (0 to "
            f"{vocab_size - 1})",
            _RIGHT_ONE,
        )
    return int(largest)


def _ids(raw: Any) -> list[Any]:
    if not isinstance(raw, dict):
        return []
    model = raw.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    ids = list(vocab.values()) if isinstance(vocab, dict) else []
    added = raw.get("added_tokens")
    if isinstance(added, list):
        ids += [one.get("id") if isinstance(one, dict) else None for one in added]
    return ids

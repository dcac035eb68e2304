"""Special token ids of the instruct tokenizer (GPT-2's vocabulary and three added tokens).

A model with this vocabulary (50260 ids) is asked as PREFIX_TOKENS + the text + SUFFIX_TOKENS and
ends its answer with EOT. The canister applies them itself in `generate`; they stand here for
programs that talk to `inference`, which takes and gives bare ids.
"""

from __future__ import annotations

EOT = 50257
"""`### End`: ends an answer."""

PREFIX_TOKENS = [50258, 198]
"""`### Instruction:` and a newline."""

SUFFIX_TOKENS = [628, 50259, 198]
r"""`\n\n`, `### Response:\n` and a newline."""

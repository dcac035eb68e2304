"""`icgpt tokenize`: the token ids of a text, by the canister's tokenizer."""

from __future__ import annotations

import click

from icgpt.cli.common import answer, calling_options, opened_writer, read_text
from icgpt.cli.help import Command


@click.command(
    cls=Command,
    examples=[
        'icgpt tokenize "what is the capital of France?"',
        'icgpt tokenize --tokens "Hello"',
        "cat letter.txt | icgpt tokenize - --json",
    ],
)
@click.argument("text", required=False)
@click.option("--tokens", is_flag=True, help="Print a line for each token, with its text.")
@calling_options
def tokenize(
    text: str | None,
    tokens: bool,
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Turn a text into token ids."""
    words = read_text(text)
    with opened_writer(canister, network, identity) as model:
        encoding = model.tokenize(words)
    if tokens:
        pairs = zip(encoding.token_ids, encoding.tokens, strict=True)
        shown = "\n".join(f"{one:>6} {text!r}" for one, text in pairs)
    else:
        shown = " ".join(str(one) for one in encoding.token_ids)
    answer(as_json, {"token_ids": encoding.token_ids, "tokens": encoding.tokens}, shown)

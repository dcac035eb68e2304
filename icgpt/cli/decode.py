"""`icgpt decode`: the text of token ids, by the canister's tokenizer."""

from __future__ import annotations

import click

from icgpt.cli.common import answer, calling_options, opened_writer
from icgpt.cli.help import Command


@click.command(
    cls=Command,
    examples=["icgpt decode 10919 318 262 3139 286 4881 30", "icgpt decode 15496 --json"],
)
@click.argument("token_ids", nargs=-1, required=True, type=click.IntRange(0, 2**32 - 1))
@calling_options
def decode(
    token_ids: tuple[int, ...],
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Turn token ids into text."""
    with opened_writer(canister, network, identity) as model:
        text = model.decode(token_ids)
    answer(as_json, {"text": text}, text)

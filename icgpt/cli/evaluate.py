"""`icgpt eval`: how well the canister's model knows a text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from icgpt.cli.common import (
    answer,
    at_terminal,
    before_spending,
    calling_options,
    canisters_of,
    opened,
    read_text,
    say,
    writer,
    yes_option,
)
from icgpt.cli.completing import FILES
from icgpt.cli.help import Command

MAX_FILE_BYTES: Final = 64 << 20


@click.command(
    name="eval",
    cls=Command,
    examples=[
        "icgpt eval story.txt",
        "icgpt eval story.txt --stride 64 --max-tokens 2000",
        "cat story.txt | icgpt eval - --json",
    ],
)
@click.argument("file", shell_complete=FILES)
@click.option(
    "--stride",
    type=click.IntRange(1),
    metavar="N",
    help="New tokens in each window; half of the context when left out.",
)
@click.option(
    "--max-tokens", type=click.IntRange(2), metavar="N", help="The text's first N tokens only."
)
@yes_option
@calling_options
def evaluate(
    file: str,
    stride: int | None,
    max_tokens: int | None,
    yes: bool,
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Say how well the model knows a text.

    Every token but the first is scored once, on the canister, in windows of the context's length.
    The loss is the mean negative log-probability; perplexity is its exponential. On mainnet, what
    it costs the canister is said first, and asked. The canisters of a fleet share the windows.
    """
    from icgpt import evaluate as room
    from icgpt.cost import calls_cycles
    from icgpt.measure import instructions

    text = read_text("-") if file == "-" else _read(Path(file))
    with opened(network, identity) as place:
        target = place[1]
        model = writer(place, canister)

        def agree(tokens: int, calls: int) -> None:
            if target.mainnet:
                _, each = instructions(model, 2, 16)
                cycles = tokens * each + calls_cycles(calls, 4 * tokens)
                before_spending(target, "Scoring the text", cycles, yes, as_json)

        with _progress() as show:
            done = room.evaluate(model, text, stride, max_tokens, show, agree, canisters_of(model))
    character, byte = done.per(done.characters), done.per(done.bytes)
    token = done.per(done.tokens)
    value = {
        "tokens": done.tokens,
        "characters": done.characters,
        "bytes": done.bytes,
        "stride": done.stride,
        "window": done.window,
        "perplexity": done.perplexity,
        "nats_per_token": token[0],
        "bits_per_token": token[1],
        "nats_per_character": character[0],
        "bits_per_character": character[1],
        "nats_per_byte": byte[0],
        "bits_per_byte": byte[1],
    }
    lines = [
        f"perplexity  {done.perplexity:.4f}",
        f"a token     {token[0]:.4f} nats, {token[1]:.4f} bits",
        f"a character {character[0]:.4f} nats, {character[1]:.4f} bits",
        f"a byte      {byte[0]:.4f} nats, {byte[1]:.4f} bits",
        f"of          {done.tokens:,} tokens, {done.characters:,} characters; "
        f"windows of {done.window}, stride {done.stride}",
    ]
    answer(as_json, value, "\n".join(lines))


def _read(path: Path) -> str:
    from icgpt.errors import UsageError

    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise UsageError(f"{path} is larger than 64 MiB", "Give a part of it.")
        return data.decode()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", "Name a text file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8", "Name a text file in UTF-8.") from error


@contextmanager
def _progress() -> Iterator[Callable[[int, int, float], None]]:
    """How far it is: a line that changes on a terminal, a line at the start elsewhere."""
    moving = at_terminal(sys.stderr)
    told = False

    def show(done: int, total: int, nats: float) -> None:
        nonlocal told
        words = f"Scoring {done:,} of {total:,} tokens, {nats / max(done, 1):.4f} nats a token"
        if moving:
            click.echo(f"\r\x1b[K{words}", err=True, nl=False)
        elif not told:
            say(f"Scoring {total:,} tokens")
        told = True

    try:
        yield show
    finally:
        if moving and told:
            click.echo("\r\x1b[K", err=True, nl=False)

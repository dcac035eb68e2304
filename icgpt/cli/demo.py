"""`icgpt demo`: everything once, from a network to text."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import click

from icgpt.cli.common import answer, bytes_text, json_option, say, show
from icgpt.cli.drawing import at_most
from icgpt.cli.help import Command

PROMPT: Final = "ROMEO:"
SEED: Final = 2
NEXT: Final = (
    'icgpt generate "JULIET:" -n 200 -t 0.8     more of it',
    "icgpt chat                                 in turns",
    "icgpt upload model ./gpt2                  a model of yours",
    "icgpt status                               what runs where",
)


@click.command(cls=Command, examples=["icgpt demo", "icgpt demo --keep"])
@click.option("--keep", is_flag=True, help="Leave the network running afterwards.")
@click.option(
    "-n",
    "--max-new-tokens",
    type=click.IntRange(1),
    callback=at_most(32_768),
    default=200,
    show_default=True,
    metavar="N",
    help="How many characters to write.",
)
@json_option
def demo(keep: bool, max_new_tokens: int, as_json: bool) -> None:
    """Start a network, put a model on it and let it write.

    Needs nothing but this package. The first time it takes some seconds more, in which the canister
    is compiled. The network ends with the demo unless it was running before; its canister and model
    are kept for the next start. On one that goes on, the model has a page in a canister of its own.
    """
    from icgpt import connect
    from icgpt import demo as room
    from icgpt.cli import progress
    from icgpt.cli.generate import statistics, statistics_line
    from icgpt.cli.writing import write
    from icgpt.identity import load
    from icgpt.principal import to_text

    parts = room.parts()
    options = {"max_new_tokens": max_new_tokens, "temperature": 0.8, "seed": SEED}
    with room.running_network(keep, say) as host:
        say(f"1/4 network   {host.network.url}")
        with connect.connect(host.network, load()) as agent:
            model = room.deployed(agent, host.network, parts.module, say)
            canister = to_text(model.id)
            say(f"2/4 canister  {canister}")
            with progress.shown() as steps:
                put = room.with_model(model, parts.checkpoint, partial(steps, ""))
            ready = f"ready in {put.seconds:.1f} s" if put.changed else "there already"
            size = bytes_text(parts.checkpoint.length)
            say(f"3/4 model     {parts.checkpoint.name}, {size}, {ready}")
            say(f"4/4 text      {max_new_tokens} characters after {PROMPT}\n")
            if not as_json:
                _put(PROMPT)
            done = write(model, PROMPT, options, _silent if as_json else _put)
            stays = host.stays and not done.interrupted
            page = room.page_of(agent, host.network, model, _silent) if stays else None
    if done.interrupted:
        click.echo()
        raise KeyboardInterrupt
    figures = statistics(
        done.completion, done.seconds, len(PROMPT), first_seconds=done.first_seconds
    )
    value: dict[str, Any] = {
        "url": host.network.url,
        "running": host.stays,
        "canister_id": canister,
        "model": parts.checkpoint.name,
        "page": page,
        **done.completion.to_json(),
        "stats": figures,
    }
    answer(as_json, value, "")
    say(f"\n{statistics_line(figures)}")
    if page is not None:
        say(f"\nIn a browser: {page}")
    say("\nGo on with:" if host.stays else "\nGo on with `icgpt network start`, then:")
    for line in NEXT:
        say(f"  {line}")


def _put(text: str) -> None:
    show(text, newline=False)


def _silent(_text: str) -> None:
    """With --json the text is part of the answer."""

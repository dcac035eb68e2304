"""`icgpt generate`: the model's answer to a text, as it is written."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icgpt.cli.common import (
    answer,
    calling_options,
    count_text,
    opened,
    read_text,
    say,
    show,
    tell_price,
    writer,
)
from icgpt.cli.drawing import check_logprobs, drawing_options, stop_option
from icgpt.cli.help import Command
from icgpt.cli.proofs import Proof, receipt_option
from icgpt.cli.searching import leave_to_the_model, longest, search_options, show_all
from icgpt.cli.writing import Written, write

if TYPE_CHECKING:
    from icgpt.client import ModelCanister
    from icgpt.fleet import Fleet
    from icgpt.results import Completion


@click.command(
    cls=Command,
    examples=[
        'icgpt generate "what is the capital of France?" -n 10 -t 0.2',
        'icgpt generate "ROMEO:" -n 200 -t 0.8 --seed 7 --stats',
        'icgpt generate "ROMEO:" -n 200 -t 1 --top-p 0.9 --stop "JULIET:"',
        "cat letter.txt | icgpt generate - -n 50 --json",
        'icgpt generate "ROMEO:" -n 50 --receipt romeo.json',
        'icgpt generate "ROMEO:" -n 30 --num-beams 4 --num-return-sequences 2',
    ],
)
@click.argument("text", required=False)
@drawing_options(tokens=10)
@search_options
@stop_option
@click.option(
    "--context",
    type=click.Choice(["stop", "slide"]),
    help="What to do when the context is full; the model's own way when left out.",
)
@click.option(
    "--template/--no-template", default=None, help="Put the model's template round the text."
)
@click.option(
    "--stream/--no-stream", default=True, show_default=True, help="Print while it is written."
)
@receipt_option
@calling_options
def generate(
    text: str | None,
    stream: bool,
    receipt: Path | None,
    stats: bool,
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Let the model answer a text.

    TEXT may be "-" for stdin. What is printed is new text only, unless --echo is given. Of a fleet
    one canister writes it, another when that one can't: see `icgpt deploy --replicas`.
    """
    from icgpt.methods import several

    check_logprobs(options, as_json)
    leave_to_the_model(options)
    stream = stream and not several(options)
    prompt = read_text(text)
    with opened(network, identity) as place:
        model = writer(place, canister)
        tell_price(place[1], model, len(prompt.encode()), longest(options))
        began = time.monotonic()
        first = None
        if receipt is not None or (stream and not as_json):
            proof = None if receipt is None else Proof(model, receipt)
            written = _written(model, prompt, options, stream and not as_json, proof)
            done, first = written.completion, written.first_seconds
            if not stream and not as_json:
                show_all(done)
        else:
            done = model.complete(prompt, **options)
            if not as_json:
                show_all(done)
        seconds = time.monotonic() - began
        echoed = (0, 0)
        if options["echo"] and (stats or as_json):
            echoed = (len(model.tokenize(prompt).token_ids), len(prompt))
    figures = statistics(done, seconds, len(prompt.encode()), *echoed, first)
    if as_json:
        answer(True, {**done.to_json(), "stats": figures}, "")
    if stats:
        from icgpt.principal import to_text

        say(statistics_line(figures) + (f"; by {to_text(done.canister)}" if done.canister else ""))


def _written(
    model: ModelCanister | Fleet,
    prompt: str,
    options: dict[str, Any],
    printing: bool,
    proof: Proof | None,
) -> Written:
    """Lets a job write, with its pieces printed as they come, and keeps its receipt."""
    shown = False

    def put(text: str) -> None:
        nonlocal shown
        if printing:
            show(text, newline=False)
            shown = shown or bool(text)

    try:
        done = write(model, prompt, options, put, proof.begin if proof else None)
    finally:
        if shown:
            click.echo()
    if done.interrupted:
        raise KeyboardInterrupt
    if proof is not None:
        return replace(done, completion=proof.keep(done.completion))
    return done


def statistics(
    done: Completion,
    seconds: float,
    prompt_bytes: int,
    echoed: int = 0,
    echoed_characters: int = 0,
    first_seconds: float | None = None,
) -> dict[str, Any]:
    """Speed, work and price of a generation; what was echoed of the prompt does not count."""
    from icgpt.cost import generation_cycles, usd

    answers = [one.token_ids for one in done.sequences or (done,)]
    tokens = sum(map(len, answers)) - echoed * len(answers)
    texts = [one.text or "" for one in done.sequences or (done,)]
    cycles = generation_cycles(done.instructions, prompt_bytes)
    return {
        "tokens": tokens,
        "characters": sum(map(len, texts)) - echoed_characters * len(texts),
        "seconds": round(seconds, 3),
        "first_seconds": None if first_seconds is None else round(first_seconds, 3),
        "tokens_per_second": round(tokens / seconds, 2),
        "instructions": done.instructions,
        "instructions_per_token": done.instructions // max(tokens, 1),
        "mainnet_cycles": cycles,
        "mainnet_usd": round(usd(cycles), 8),
    }


def statistics_line(figures: dict[str, Any]) -> str:
    """The same in one line for people."""
    unit = "characters" if figures["characters"] else "tokens"
    speed = figures[unit] / figures["seconds"] if figures["seconds"] else 0.0
    first = figures["first_seconds"]
    return (
        f"{figures[unit]} {unit} in {figures['seconds']:.1f} s ({speed:.1f} {unit}/s"
        f"{'' if first is None else f', the first after {first:.2f} s'}), "
        f"{count_text(figures['instructions_per_token'])} instructions per token; "
        f"on mainnet about {count_text(figures['mainnet_cycles'])} cycles "
        f"({figures['mainnet_usd']:.2g} USD)"
    )

"""`icgpt infer`: token ids in, token ids out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from icgpt.cli.common import answer, calling_options, opened, say, tell_price, writer
from icgpt.cli.drawing import check_logprobs, drawing_options
from icgpt.cli.help import Command
from icgpt.cli.proofs import Proof, receipt_option
from icgpt.cli.searching import leave_to_the_model, longest, search_options
from icgpt.cli.writing import write


@click.command(
    cls=Command,
    examples=[
        "icgpt infer 1 2 -n 1 -t 0.2",
        "icgpt infer 10919 318 262 3139 -n 5 -t 0 --json",
        "icgpt infer 1 2 -n 5 --receipt ids.json",
    ],
)
@click.argument("token_ids", nargs=-1, required=True, type=click.IntRange(0, 2**32 - 1))
@drawing_options(tokens=1)
@search_options
@receipt_option
@calling_options
def infer(
    token_ids: tuple[int, ...],
    receipt: Path | None,
    stats: bool,
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Let the model go on from token ids.

    No template is put round them, and no tokenizer is needed.
    """
    from icgpt.cli.generate import statistics, statistics_line

    check_logprobs(options, as_json)
    leave_to_the_model(options)
    with opened(network, identity) as place:
        model = writer(place, canister)
        tell_price(place[1], model, len(token_ids), longest(options))
        began = time.monotonic()
        options["template"] = False
        if receipt is None:
            done = model.complete(list(token_ids), **options)
        else:
            proof = Proof(model, receipt)
            written = write(model, list(token_ids), options, lambda piece: None, proof.begin)
            if written.interrupted:
                raise KeyboardInterrupt
            done = proof.keep(written.completion)
        seconds = time.monotonic() - began
    echoed = len(token_ids) if options["echo"] else 0
    figures = statistics(done, seconds, 4 * len(token_ids), echoed)
    value = {**done.to_json(), "stats": figures}
    answers = [one.token_ids for one in done.sequences or (done,)]
    lines = (" ".join(str(one) for one in ids) for ids in answers)
    answer(as_json, value, "\n".join(lines))
    if stats:
        say(statistics_line(figures))

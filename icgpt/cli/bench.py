"""`icgpt bench`: how fast a deployed model is."""

from __future__ import annotations

from dataclasses import asdict

import click

from icgpt.cli.common import (
    answer,
    before_spending,
    calling_options,
    canisters_of,
    count_option,
    count_text,
    opened,
    say,
    writer,
    yes_option,
)
from icgpt.cli.help import Command


@click.command(
    cls=Command,
    examples=[
        "icgpt bench",
        "icgpt bench -n 200 --prompt-tokens 50",
        "icgpt bench --jobs 8 --json",
    ],
)
@count_option(
    "-n", "--tokens", default=64, least=2, most=4096, text="How many tokens each answer has."
)
@count_option("--prompt-tokens", default=16, most=4096, text="How many tokens each prompt has.")
@count_option("--jobs", default=1, most=32, text="How many answers are written at once.")
@count_option("--rounds", default=3, most=100, text="How often all of it is done.")
@yes_option
@calling_options
def bench(
    tokens: int,
    prompt_tokens: int,
    jobs: int,
    rounds: int,
    yes: bool,
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Measure how fast the model writes.

    Random prompts are answered, so it costs what such answers cost; figures are medians of the
    rounds. Times are of this machine and its network, instructions are the same everywhere. On
    mainnet, what it costs the canister is said first, and asked. The canisters of a fleet share the
    --jobs.
    """
    from icgpt.measure import expected_cycles, measure

    with opened(network, identity) as place:
        target = place[1]
        model = writer(place, canister)
        canisters = canisters_of(model)
        if target.mainnet:
            cycles = expected_cycles(model, tokens, prompt_tokens, jobs, rounds)
            before_spending(target, "The measurement", cycles, yes, as_json)
        where = f", spread over {canisters} canisters" if canisters > 1 else ""
        say(f"Writing {rounds * (1 + jobs)} answers{where}")
        done = measure(model, tokens, prompt_tokens, jobs, rounds)
    together = f", {jobs} answers at once" if jobs > 1 else ""
    lines = [
        f"first token   {done.first_seconds:.3f} s, after {prompt_tokens} tokens of prompt",
        f"speed         {done.tokens_per_second:.1f} tokens/s{together}",
        f"a token       {1000 * done.seconds_per_token:.1f} ms, "
        f"{count_text(done.instructions_per_token)} instructions",
        f"of a prompt   {count_text(done.instructions_per_prompt_token)} instructions a token",
        f"round trips   query {1000 * done.query_seconds:.0f} ms, "
        f"call {1000 * done.update_seconds:.0f} ms",
    ]
    answer(as_json, {**asdict(done), "canisters": canisters}, "\n".join(lines))

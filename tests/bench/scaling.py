"""What a fleet gives: tokens a second and dollars a million tokens, from measured instructions.

The platform's figures are those of rs/config/src/subnet_config.rs of dfinity/ic: a slice of a
canister's message has 2 B instructions and "approximately 1 second" on a node, and a subnet
executes canisters on four threads. Prices are those of `icgpt.cost`.
"""

from __future__ import annotations

from typing import Any

import page

from icgpt import cost

INSTRUCTIONS_PER_SECOND = 2_000_000_000  # of a canister that always has work
THREADS = 4  # of a subnet; each executes one canister at a time
# An answer as it is reckoned here.
PROMPT, ANSWER = 32, 100
CONTEXT = "128"
FLEETS = ((1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (40, 10))
MODELS = (("demo", "int8"), ("gpt2-124m", "int8"))


def answer_instructions(figures: dict[str, Any], together: bool) -> int:
    """Instructions of one answer, page charges included; alone, or among eight or more."""
    token = figures["together" if together else "decode"][CONTEXT]
    work = figures["prefill"][str(PROMPT)] + ANSWER * token
    # Weights are touched anew in each message of a job, which has 4 B instructions.
    return int(work * (1 + figures["pages"]["decode"] / cost.MESSAGE_INSTRUCTIONS))


def tokens_per_second(
    figures: dict[str, Any], canisters: int, subnets: int, together: bool = True
) -> float:
    """What canisters on subnets write that have nothing else to do."""
    at_work = min(canisters, THREADS * subnets)
    per_answer = answer_instructions(figures, together) / INSTRUCTIONS_PER_SECOND
    return at_work * ANSWER / per_answer


def usd_per_million(figures: dict[str, Any], together: bool = True) -> float:
    """What a million tokens cost on a subnet of 13 nodes, however many canisters write them."""
    cycles = cost.generation_cycles(answer_instructions(figures, together), 4 * PROMPT)
    return cost.usd(cycles * 1_000_000 // ANSWER)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Both tables of docs/scaling.md."""
    models = [
        (f"{page.TITLES[shape]}, {precision}", results[shape][precision])
        for shape, precision in MODELS
    ]
    names = [name for name, _ in models]
    fleets = [
        [str(canisters), str(subnets)]
        + [f"{tokens_per_second(one, canisters, subnets):,.0f}" for _, one in models]
        for canisters, subnets in FLEETS
    ]
    alone = [f"{tokens_per_second(one, 1, 1, together=False):,.0f}" for _, one in models]
    each = [
        ["M instructions an answer, alone"]
        + [page.millions(answer_instructions(one, together=False)) for _, one in models],
        ["the same, among eight or more"]
        + [page.millions(answer_instructions(one, together=True)) for _, one in models],
        ["tokens a second of one answer alone", *alone],
        ["USD a million tokens, alone"]
        + [f"{usd_per_million(one, together=False):,.1f}" for _, one in models],
        ["the same, among eight or more"] + [f"{usd_per_million(one):,.1f}" for _, one in models],
    ]
    return "\n\n".join(
        (
            page.table(["tokens a second: canisters", "subnets", *names], fleets),
            page.table(["one answer", *names], each),
        )
    )

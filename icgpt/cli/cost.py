"""`icgpt cost`: what tokens, an upload and a month of being there cost on mainnet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from icgpt.cli.common import (
    answer,
    bytes_text,
    calling_options,
    count_option,
    count_text,
    opened_model,
    say,
)
from icgpt.cli.completing import MODELS, SHAPES
from icgpt.cli.help import Command
from icgpt.cli.sources import precision_option, source_options

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint


@click.command(
    cls=Command,
    examples=[
        "icgpt cost",
        "icgpt cost --tokens 50000 --answer 200 --prompt 50",
        "icgpt cost --shape gpt2-124m --precision int8",
        "icgpt cost --upload ./gpt2 --precision int8",
    ],
)
@count_option("--tokens", default=1_000_000, text="How many tokens are written in all.")
@count_option("--answer", "length", default=100, text="How many tokens an answer has.")
@count_option("--prompt", default=20, text="How many tokens a prompt has.")
@click.option(
    "--shape",
    metavar="NAME",
    help="A model that was measured, instead of the canister's.",
    shell_complete=SHAPES,
)
@click.option(
    "--upload",
    "source",
    metavar="SOURCE",
    shell_complete=MODELS,
    help="What the upload of a model takes instead, as `icgpt upload --dry-run` tells it.",
)
@precision_option("The shape's, int8 when left out; or that of the upload.")
@click.option("--seed-flow", is_flag=True, help="With --upload: by the seed's own methods.")
@source_options
@calling_options
def cost(
    tokens: int,
    length: int,
    prompt: int,
    shape: str | None,
    source: str | None,
    precision: str | None,
    seed_flow: bool,
    open_source: Callable[[str], Checkpoint],
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Say what it costs on mainnet.

    The canister's own model is measured by queries, which are free. Prices are those of a 13-node
    subnet, a trillion cycles being one XDR. With --upload nothing is sent: bytes, messages, cycles
    and time of an upload are reckoned, for a canister that has nothing of it.
    """
    if source is not None:
        from icgpt.cli.estimates import introduce, tell_estimate

        if shape:
            raise click.UsageError("--upload has its own shape: leave --shape out.")
        checkpoint = open_source(source)
        introduce(checkpoint)
        tell_estimate(as_json, checkpoint, precision, seed_flow)
        return
    if seed_flow:
        raise click.UsageError("--seed-flow says how to --upload.")
    from icgpt.cost import CREATE_CYCLES, generation_cycles, storage_cycles, usd

    found = _known(shape, precision or "int8") if shape else _measured(canister, network, identity)
    answers = -(-tokens // length)
    work = (
        length * found["instructions_per_token"] + prompt * found["instructions_per_prompt_token"]
    )
    prices = {
        f"{tokens:,} tokens": answers * generation_cycles(work, 4 * prompt),
        "an answer": generation_cycles(work, 4 * prompt),
        "a new canister": CREATE_CYCLES,
    }
    if found["memory_bytes"]:
        month = storage_cycles(found["memory_bytes"])
        prices[f"a month, {bytes_text(found['memory_bytes'])}"] = month
    lines = [
        f"{found['model']}: {count_text(found['instructions_per_token'])} instructions a token, "
        f"{count_text(found['instructions_per_prompt_token'])} a token of the prompt",
        f"answers of {length} tokens after prompts of {prompt}",
    ]
    lines += [
        f"{name:<26}{count_text(cycles):>16} cycles {usd(cycles):>12.6f} USD"
        for name, cycles in prices.items()
    ]
    value = {
        **found,
        "tokens": tokens,
        "answer_tokens": length,
        "prompt_tokens": prompt,
        "prices": {name: {"cycles": one, "usd": usd(one)} for name, one in prices.items()},
    }
    answer(as_json, value, "\n".join(lines))


def _measured(canister: str, network: str | None, identity: str | None) -> dict[str, Any]:
    """The canister's model."""
    from icgpt.errors import RefusedError
    from icgpt.management import status
    from icgpt.measure import instructions

    with opened_model(canister, network, identity) as model:
        token, prompt_token = instructions(model, 17, 16)
        memory: int | None = None
        try:
            memory = status(model.agent, model.id).memory_bytes
        except RefusedError:
            say("How much memory it has is for its controllers to know; storage is left out.")
    return {
        "model": f"the model in {canister}",
        "instructions_per_token": token,
        "instructions_per_prompt_token": prompt_token,
        "memory_bytes": memory,
    }


def _known(shape: str, precision: str) -> dict[str, Any]:
    """A model that the package's benchmarks have measured."""
    from icgpt.cost import shapes
    from icgpt.errors import UsageError

    known = shapes()
    figures = known.get(shape, {}).get(precision)
    if figures is None:
        raise UsageError(
            f"the shape '{shape}' was not measured in {precision}",
            f"Shapes: {', '.join(name for name, one in known.items() if precision in one)}.",
        )
    return {
        "model": f"{shape} in {precision}",
        "instructions_per_token": figures.token,
        "instructions_per_prompt_token": figures.prompt_token,
        "memory_bytes": None,
    }

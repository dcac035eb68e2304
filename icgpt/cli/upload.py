"""`icgpt upload`: a model into a canister."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from icgpt.cli.common import (
    all_models,
    answer,
    before_spending,
    bytes_text,
    identity_option,
    json_option,
    network_option,
    opened,
    say,
    yes_option,
)
from icgpt.cli.completing import CANISTERS, MODELS
from icgpt.cli.estimates import introduce, tell_estimate
from icgpt.cli.help import Command
from icgpt.cli.sources import precision_option, source_options

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint
    from icgpt.upload import Upload


@click.command(
    cls=Command,
    examples=[
        "icgpt upload model shakespeare-char",
        "icgpt upload model ./gpt2 --precision int8",
        "icgpt upload model ./gpt2 --precision int8 --dry-run",
        "icgpt upload model ckpt.pt",
        "icgpt upload model weights.pth --model-name gpt2",
        "icgpt upload model vicgalle/gpt2-open-instruct-v1",
        "icgpt upload uc7oy-…-cai ./gpt2 --network ic --identity me.pem",
    ],
)
@click.argument("canister", shell_complete=CANISTERS)
@click.argument("source", shell_complete=MODELS)
@precision_option(
    "How the canister holds the weights: they are converted here, before they are sent. As "
    "config.json says when left out; and where that is silent, f32, sent as they are."
)
@source_options
@click.option(
    "--name", metavar="NAME", help="What the model is called there; its own name otherwise."
)
@click.option("--force", is_flag=True, help="Also when the canister runs this very model.")
@click.option(
    "--seed-flow", is_flag=True, help="Append by the seed's own methods; the canister converts."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Send nothing; say what it would take: reckoned from measured instructions and local "
    "times, and by the prices of a 13-node subnet. Time on mainnet is the least that its limits "
    "allow.",
)
@yes_option
@network_option
@identity_option
@json_option
def upload(
    canister: str,
    source: str,
    open_source: Callable[[str], Checkpoint],
    precision: str | None,
    name: str | None,
    force: bool,
    seed_flow: bool,
    dry_run: bool,
    yes: bool,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Put a model into a canister.

    SOURCE is a folder with model.safetensors, config.json and, unless the model is used by token
    ids alone, tokenizer.json; a .safetensors file; a .pth or .pt file with a state dict, nanoGPT's
    too; a model's id on the Hugging Face hub (owner/name); or the name of a built-in model
    (shakespeare-char, shakespeare-bpe). It is checked before anything is sent. An upload that broke
    off is gone on with when it is run again. All canisters of a fleet get it at the same time; one
    of them alone is named by its id. On mainnet, what it costs is said first, and asked.
    """
    from icgpt.cli import progress
    from icgpt.fleet_upload import upload_fleet

    checkpoint = open_source(source)
    introduce(checkpoint)
    if dry_run:
        tell_estimate(as_json, checkpoint, precision, seed_flow)
        return
    try:
        with opened(network, identity) as place:
            models = all_models(place, canister)
            fleet = len(models) > 1

            def agree(count: int, cycles: int) -> None:
                what = "The upload" + (f", to each of {count} canisters," if count > 1 else "")
                before_spending(place[1], what, cycles, yes, as_json)

            with progress.shown(list(models) if fleet else ()) as show:
                done = upload_fleet(
                    models, checkpoint, show, force, precision, seed_flow, agree, name
                )
    except KeyboardInterrupt:
        say("What was sent is kept. Upload again to go on with it.")
        raise
    value: dict[str, Any] = {"source": checkpoint.name, "parameters": checkpoint.parameters}
    if fleet:
        value["replicas"] = {member: _json(one) for member, one in done.items()}
        text = "\n".join(f"{member}: {_text(one)}" for member, one in done.items())
    else:
        value |= _json(done[canister])
        text = _text(done[canister])
    answer(as_json, value, text)


def _json(done: Upload) -> dict[str, Any]:
    return {
        "bytes": done.total,
        "sent": done.sent,
        "resumed": done.resumed,
        "seconds": round(done.seconds, 3),
        "changed": done.changed,
        "sha256": {kind: sha256.hex() for kind, sha256 in done.hashes.items()},
        "layout_sha256": done.layout.hex() if done.layout else None,
    }


def _text(done: Upload) -> str:
    if not done.changed:
        return "Nothing to do: the canister runs this model already."
    kept = f" ({bytes_text(done.resumed)} were there already)" if done.resumed else ""
    return f"The model is ready: {bytes_text(done.sent)} in {done.seconds:.1f} s{kept}."

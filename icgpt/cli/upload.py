"""`icgpt upload`: a model into a canister."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from icgpt.cli.common import (
    answer,
    bytes_text,
    identity_option,
    json_option,
    network_option,
    opened_model,
    say,
)
from icgpt.cli.help import Command
from icgpt.cli.sources import source_options

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint


@click.command(
    cls=Command,
    examples=[
        "icgpt upload model shakespeare-char",
        "icgpt upload model ./gpt2 --precision int8",
        "icgpt upload model ckpt.pt",
        "icgpt upload model weights.pth --model-name gpt2",
        "icgpt upload model vicgalle/gpt2-open-instruct-v1",
        "icgpt upload uc7oy-…-cai ./gpt2 --network ic --identity me.pem",
    ],
)
@click.argument("canister")
@click.argument("source")
@click.option(
    "--precision",
    type=click.Choice(["int8", "int16", "f32"]),
    help="How the canister holds the weights; as config.json says, or f32, when left out.",
)
@source_options
@click.option("--force", is_flag=True, help="Also when the canister runs this very model.")
@network_option
@identity_option
@json_option
def upload(
    canister: str,
    source: str,
    open_source: Callable[[str], Checkpoint],
    precision: str | None,
    force: bool,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Put a model into a canister.

    SOURCE is a folder with model.safetensors, config.json and, unless the model is used by token
    ids alone, tokenizer.json; a .safetensors file; a .pth or .pt file with a state dict, nanoGPT's
    too; a model's id on the Hugging Face hub (owner/name); or the name of a built-in model
    (shakespeare-char). It is checked before anything is sent. An upload that broke off is gone on
    with when it is run again.
    """
    from icgpt.cli import progress
    from icgpt.upload import upload as put

    checkpoint = open_source(source)
    say(
        f"{checkpoint.name}: {checkpoint.parameters:,} parameters, {bytes_text(checkpoint.length)}"
        + ("" if "tokenizer" in checkpoint.files else ", no tokenizer")
    )
    try:
        with opened_model(canister, network, identity) as model, progress.shown() as show:
            done = put(model, checkpoint, show, force, precision)
    except KeyboardInterrupt:
        say("What was sent is kept. Upload again to go on with it.")
        raise
    value = {
        "source": checkpoint.name,
        "parameters": checkpoint.parameters,
        "bytes": checkpoint.length,
        "sent": done.sent,
        "resumed": done.resumed,
        "seconds": round(done.seconds, 3),
        "changed": done.changed,
        "sha256": {kind: sha256.hex() for kind, sha256 in done.hashes.items()},
    }
    if not done.changed:
        text = "Nothing to do: the canister runs this model already."
    else:
        kept = f" ({bytes_text(done.resumed)} were there already)" if done.resumed else ""
        text = f"The model is ready: {bytes_text(done.sent)} in {done.seconds:.1f} s{kept}."
    answer(as_json, value, text)

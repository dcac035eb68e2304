"""`icgpt convert`: a model from wherever it is into a folder in Hugging Face's form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from icgpt.cli.common import answer, bytes_text, count_text, json_option
from icgpt.cli.completing import MODELS
from icgpt.cli.help import Command
from icgpt.cli.sources import out_option, source_options

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint


@click.command(
    cls=Command,
    examples=[
        "icgpt convert ckpt.pt --out plain",
        "icgpt convert ./story --precision int8 --out small",
    ],
)
@click.argument("source", shell_complete=MODELS)
@out_option("Where the model goes; it must be empty, or not there.")
@click.option(
    "--precision",
    type=click.Choice(["int8"]),
    help="Write a byte for each weight, which icgpt reads and transformers does not.",
)
@source_options
@json_option
def convert(
    source: str,
    out: Path,
    precision: str | None,
    open_source: Callable[[str], Checkpoint],
    as_json: bool,
) -> None:
    """Write a model in Hugging Face's form, or in eight bits.

    SOURCE is whatever `icgpt upload` takes: a folder, a file of safetensors or PyTorch, nanoGPT's
    ckpt.pt, an id of the hub, a built-in name. The folder gets model.safetensors, config.json and
    tokenizer.json, which transformers and tokenizers read.
    """
    from icgpt.checkpoint.eight_bits import write_eight_bits
    from icgpt.hub.carried import carry_model
    from icgpt.hub.folders import check_free, new_folder

    check_free(out)
    checkpoint = open_source(source)
    with new_folder(out) as made:
        if precision is None:
            carry_model(checkpoint, made)
        else:
            write_eight_bits(checkpoint, made)
    files = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    value = {"folder": str(out), "parameters": checkpoint.parameters, "files": files}
    size = bytes_text(sum(files.values()))
    answer(as_json, value, f"{out}: {count_text(checkpoint.parameters)} parameters, {size}")

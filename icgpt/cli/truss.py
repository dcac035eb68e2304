"""`icgpt truss`: a Truss for a model, which Baseten's tools load and deploy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from icgpt.cli.common import answer, json_option
from icgpt.cli.help import Command
from icgpt.cli.sources import carried_source, out_option, precision_option, source_options

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint


@click.command(
    cls=Command,
    examples=[
        "icgpt truss ./story --out story-truss",
        "icgpt truss me/story --out hub-truss --name Story",
    ],
)
@click.argument("source")
@source_options
@precision_option("How the weights are held; int8 when left out.")
@out_option("Where the Truss goes.")
@click.option("--name", metavar="TEXT", help="What the model is called; its own name otherwise.")
@json_option
@click.pass_context
def truss(
    ctx: click.Context,
    source: str,
    open_source: Callable[[str], Checkpoint],
    precision: str | None,
    out: Path,
    name: str | None,
    as_json: bool,
) -> None:
    """Write a Truss for a model, to deploy with Baseten's tools.

    SOURCE is what `icgpt upload` takes. A model of the Hugging Face hub (owner/name) is fetched
    when the Truss is loaded, any other goes into it.
    """
    from icgpt.hub.truss import write_truss

    model, own_name, revision = carried_source(source, open_source, ctx.params["revision"])
    write_truss(out, name or own_name, model, precision or "int8", revision)
    answer(as_json, {"folder": str(out)}, str(out))

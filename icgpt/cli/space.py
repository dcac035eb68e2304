"""`icgpt space`: a Gradio Space for a model, in a folder and, if wanted, on the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from icgpt.cli.common import answer, json_option, say
from icgpt.cli.help import Command
from icgpt.cli.sources import carried_source, out_option, source_options

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint


@click.command(
    cls=Command,
    examples=[
        "icgpt space ./story --out story-space",
        "icgpt space me/story --out hub-space --title Story",
        "icgpt space ./story --out sent-space --push me/story-page --dry-run",
    ],
)
@click.argument("source")
@source_options
@out_option("Where the Space goes.")
@click.option("--title", metavar="TEXT", help="What its page is called; the model's name.")
@click.option("--push", "repository", metavar="OWNER/NAME", help="Send it to the hub.")
@click.option("--private", is_flag=True, help="With --push: a Space that only you can see.")
@click.option("--dry-run", is_flag=True, help="With --push: write it, but send nothing.")
@json_option
@click.pass_context
def space(
    ctx: click.Context,
    source: str,
    open_source: Callable[[str], Checkpoint],
    out: Path,
    title: str | None,
    repository: str | None,
    private: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write a Gradio Space for a model.

    SOURCE is what `icgpt upload` takes. A model of the Hugging Face hub (owner/name) is fetched by
    the Space itself, any other goes into it. `python app.py` in the folder runs it here, too.
    """
    from icgpt.cli.push import sent
    from icgpt.hub.files import all_of
    from icgpt.hub.pushing import Target
    from icgpt.hub.space import write_space

    if repository is None and (private or dry_run):
        raise click.UsageError("--private and --dry-run go with --push.")
    target = None if repository is None else Target(repository, "space", private=private)
    model, name, revision = carried_source(source, open_source, ctx.params["revision"])
    called = title or name
    write_space(out, called, model, revision)
    if target is None:
        answer(as_json, {"folder": str(out), "files": len(all_of(out).files)}, str(out))
        return
    say(f"The Space is in {out}")
    sent(all_of(out), target, f"Show {called}", dry_run, as_json)

"""`icgpt push`: a model to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from icgpt.cli.common import answer, bytes_text, json_option, say
from icgpt.cli.help import Command
from icgpt.cli.sources import source_options

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint
    from icgpt.hub.files import Chosen
    from icgpt.hub.pushing import Target


@click.command(
    cls=Command,
    examples=[
        "icgpt push ./story me/story --dry-run",
        "icgpt push ./story me/story --private",
        'icgpt push ./story me/story --branch next --message "Trained for longer"',
    ],
)
@click.argument("source")
@click.argument("repository")
@source_options
@click.option("--private", is_flag=True, help="Make a repository that only you can read.")
@click.option(
    "--branch", default="main", show_default=True, metavar="NAME", help="The branch to write to."
)
@click.option("--message", metavar="TEXT", help="The commit's message.")
@click.option("--dry-run", is_flag=True, help="Send nothing; say what would be sent.")
@json_option
def push(
    source: str,
    repository: str,
    open_source: Callable[[str], Checkpoint],
    private: bool,
    branch: str,
    message: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put a model on the Hugging Face hub.

    SOURCE is what `icgpt upload` takes; it is checked first, and sent in Hugging Face's form:
    model.safetensors, config.json, tokenizer.json. Of a folder the model card, logs and figures go
    too, and nothing else. REPOSITORY is owner/name, made when it is not there. The token comes from
    HF_TOKEN, or is that of `hf auth login`.
    """
    from icgpt.hub.files import MODEL_CARD, choose
    from icgpt.hub.pushing import Target

    target = Target(repository, "model", branch, private)
    checkpoint = open_source(source)
    chosen = choose(checkpoint, source)
    if MODEL_CARD not in (one.name for one in chosen.files):
        say(f"There is no {MODEL_CARD}: nobody will know what the model is.")
    sent(chosen, target, message or f"Add {checkpoint.name}", dry_run, as_json)


def sent(chosen: Chosen, target: Target, message: str, dry_run: bool, as_json: bool) -> None:
    """Sends files and tells what was sent, or what would be."""
    from icgpt.hub.pushing import push as send

    value: dict[str, Any] = {
        "repository": target.repository,
        "kind": target.kind,
        "branch": target.revision,
        "private": target.private,
        "files": {one.name: one.length for one in chosen.files},
        "left_out": chosen.left_out,
        "sent": not dry_run,
    }
    if chosen.left_out:
        say(f"Not sent: {', '.join(chosen.left_out)}")
    if dry_run:
        width = max(len(one.name) for one in chosen.files)
        lines = [f"{one.name:<{width}}  {bytes_text(one.length)}" for one in chosen.files]
        way = " (private, when it is made)" if target.private else ""
        to = f"to the {target.kind} {target.repository}, branch {target.revision}{way}"
        answer(as_json, value, "\n".join([*lines, f"{bytes_text(chosen.length)} {to}"]))
        return
    say(f"Sending {bytes_text(chosen.length)} to {target.repository}")
    done = send(chosen, target, message)
    answer(as_json, {**value, "url": done.url, "commit": done.commit}, done.url)

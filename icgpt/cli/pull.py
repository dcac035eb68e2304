"""`icgpt pull`: a model of the Hugging Face hub into a folder."""

from __future__ import annotations

from pathlib import Path

import click

from icgpt.cli.common import answer, bytes_text, count_text, json_option
from icgpt.cli.help import Command


@click.command(
    cls=Command,
    examples=[
        "icgpt pull vicgalle/gpt2-open-instruct-v1",
        "icgpt pull vicgalle/gpt2-open-instruct-v1 --revision main --out instruct",
    ],
)
@click.argument("repository")
@click.option(
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Where the model goes; by default a folder here with its name.",
)
@click.option("--revision", metavar="NAME", help="Branch, tag or commit.")
@json_option
def pull(repository: str, out: Path | None, revision: str | None, as_json: bool) -> None:
    """Fetch a model of the Hugging Face hub into a folder.

    REPOSITORY is owner/name. The files that the model is made of come, with its card and its
    figures, and are checked. A private or gated model needs a token: HF_TOKEN, or that of
    `hf auth login`.
    """
    from icgpt.hub.pulling import pull as fetch

    folder = Path(repository.rpartition("/")[2]) if out is None else out
    done = fetch(repository, folder, revision)
    value = {
        "folder": str(folder),
        "parameters": done.parameters,
        "files": {file.path.name: file.length for file in done.files.values()},
    }
    words = f"{folder}: {count_text(done.parameters)} parameters, {bytes_text(done.length)}"
    answer(as_json, value, words)

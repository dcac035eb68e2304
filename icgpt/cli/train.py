"""`icgpt train`: train a model on a text and leave a folder that `icgpt upload` takes."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import click

from icgpt.cli.common import answer, json_option, say
from icgpt.cli.help import Command
from icgpt.train import card, data, export
from icgpt.train.errors import TorchMissingError
from icgpt.train.presets import PRESETS

INTERRUPTED = 1  # as for every other command that Ctrl-C ends


@click.command(
    cls=Command,
    examples=[
        "icgpt train shakespeare-char",
        "icgpt train shakespeare-char --data story.txt --max-iters 500 --out story",
        "icgpt upload model story",
    ],
)
@click.argument("preset", type=click.Choice(sorted(PRESETS)))
@click.option(
    "--data",
    "source",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A text file in UTF-8; tiny Shakespeare is downloaded when none is given.",
)
@click.option(
    "--max-iters",
    metavar="N",
    type=click.IntRange(min=1),
    help="Steps to train; the preset's when not given.",
)
@click.option(
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Where the model goes; by default a folder here, named as the preset.",
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(min=0),
    help="The run is the same for the same seed; the preset's when not given.",
)
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    preset: str,
    source: Path | None,
    max_iters: int | None,
    out: Path | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Train a small model (needs PyTorch).

    It is trained from scratch and written as a folder with model.safetensors, config.json and
    tokenizer.json in Hugging Face form, a model card, and a log. The folder always has the best
    model so far; Ctrl-C saves and ends.
    """
    try:
        from icgpt.train import loop
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise TorchMissingError from error
    from icgpt.train.progress import ProgressWatcher

    settings = PRESETS[preset].changed(max_iters, seed)
    folder = Path(preset) if out is None else out
    watcher = ProgressWatcher(settings)
    content = data.shakespeare(watcher.say) if source is None else data.read_file(source)
    corpus = data.prepare(content, settings.n_ctx)
    export.open_folder(folder)
    with watcher.watching():
        result = loop.run(corpus, settings, folder, watcher)
    command = ["icgpt", "train", preset]
    if source is not None and corpus.sha256 != data.SHAKESPEARE_SHA256:
        command += ["--data", source.name]
    if max_iters is not None:
        command += ["--max-iters", str(max_iters)]
    if seed is not None:
        command += ["--seed", str(seed)]
    text = card.card(folder.resolve().name, shlex.join(command), corpus, settings, result)
    export.write_card(folder, text)
    value = {"folder": str(folder), "data_sha256": corpus.sha256, **asdict(result)}
    words = (
        f"{folder}: validation loss {result.validation_loss:.4f}, training loss "
        f"{result.train_loss:.4f}, step {result.best_iteration:,} of {result.iterations:,}"
    )
    answer(as_json, value, words)
    # As a path: a bare name may be that of the model in the box.
    say(f"Put it into a canister with: icgpt upload model {shlex.quote(str(folder.resolve()))}")
    if result.interrupted:
        ctx.exit(INTERRUPTED)

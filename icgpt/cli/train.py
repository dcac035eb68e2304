"""`icgpt train`: train a model on a text and leave a folder that `icgpt upload` takes."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import click

from icgpt.cli.common import answer, json_option, say
from icgpt.cli.help import Command, GroupedOption
from icgpt.cli.training_options import Choices, training_options
from icgpt.train import card, corpus, data, export
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
@training_options
@click.option(
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Where the model goes; by default a folder here, named as the preset.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a run that was broken off in that folder; begin where there is none.",
)
@click.option(
    "--device",
    "wanted",
    cls=GroupedOption,
    group="Machine",
    type=click.Choice(("auto", "cpu", "cuda", "mps")),
    default="auto",
    help="What computes; the fastest there is when not given.",
)
@click.option(
    "--precision",
    cls=GroupedOption,
    group="Machine",
    type=click.Choice(("auto", "float32", "bfloat16")),
    default="auto",
    help="Of products: bfloat16 on CUDA, else float32, when not given.",
)
@click.option(
    "--threads",
    cls=GroupedOption,
    group="Machine",
    metavar="N",
    type=click.IntRange(min=1),
    help="CPU threads; as many as there are cores when not given.",
)
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    preset: str,
    choices: Choices,
    out: Path | None,
    resume: bool,
    wanted: str,
    precision: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train a small model (needs PyTorch).

    It is trained from scratch and written as a folder with model.safetensors, config.json and
    tokenizer.json in Hugging Face form, a model card, and a log. The folder always has the best
    model so far; Ctrl-C saves and ends, and --resume goes on. What is not given is the preset's.
    """
    try:
        from icgpt.train import loop
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise TorchMissingError from error
    from icgpt.train.device import open_device
    from icgpt.train.progress import ProgressWatcher

    chosen = choices.preset(PRESETS[preset])
    settings = chosen.settings
    folder = Path(preset) if out is None else out
    text = data.find(chosen.data, chosen.shares, say)
    prepared = corpus.prepare(text, settings.n_ctx, chosen.tokenizer, chosen.vocab_size)
    export.open_folder(folder, resume)
    device = open_device(wanted, precision, threads)
    watcher = ProgressWatcher(settings, prepared.vocabulary.unit, quiet=not device.first)
    with watcher.watching():
        result = loop.run(prepared, settings, folder, watcher, device, resume)
    device.close()
    if not device.first:
        return
    known = text.sha256 == data.SHAKESPEARE_SHA256 and PRESETS[preset].data == data.TINY
    command = ["icgpt", "train", preset, *choices.words(known)]
    words = card.card(folder.resolve().name, shlex.join(command), prepared, settings, result)
    export.write_card(folder, words)
    value = {"folder": str(folder), "data_sha256": text.sha256, **asdict(result)}
    test = "" if result.test_loss is None else f"testing loss {result.test_loss:.4f}, "
    line = (
        f"{folder}: validation loss {result.validation_loss:.4f}, {test}training loss "
        f"{result.train_loss:.4f}, step {result.best_iteration:,} of {result.iterations:,}"
    )
    answer(as_json, value, line)
    # As a path: a bare name may be that of the model in the box.
    say(f"Put it into a canister with: icgpt upload model {shlex.quote(str(folder.resolve()))}")
    if result.interrupted:
        ctx.exit(INTERRUPTED)

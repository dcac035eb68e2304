"""`icgpt train`: train a model on a text and leave a folder that `icgpt upload` takes."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from icgpt.cli.common import answer, json_option, say
from icgpt.cli.help import Command, GroupedOption
from icgpt.cli.sources import source_options
from icgpt.cli.training_options import Choices, machine_options, training_options
from icgpt.errors import UsageError
from icgpt.train import card, corpus, data, export, figure
from icgpt.train.errors import TorchMissingError
from icgpt.train.presets import PRESETS
from icgpt.train.starting import open_start

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint

INTERRUPTED = 1  # as for every other command that Ctrl-C ends


@click.command(
    cls=Command,
    examples=[
        "icgpt train shakespeare-char",
        "icgpt train shakespeare-char --data story.txt --max-iters 500 --out story",
        "icgpt train finetune --from shakespeare-char --data letters.txt --out letters",
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
    "--from",
    "origin",
    metavar="SOURCE",
    help="Train this model further: a folder, a file, an id of the hub, a built-in name.",
)
@source_options
@machine_options
@click.option(
    "--prompt",
    "prompts",
    cls=GroupedOption,
    group="Samples",
    metavar="TEXT",
    multiple=True,
    help="Let the trained model go on from this; may be given several times.",
)
@click.option(
    "--sample-tokens",
    "length",
    cls=GroupedOption,
    group="Samples",
    metavar="N",
    type=click.IntRange(min=1, max=10_000),
    default=100,
    show_default=True,
    help="Tokens that it writes for each.",
)
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    preset: str,
    choices: Choices,
    out: Path | None,
    resume: bool,
    origin: str | None,
    open_source: Callable[[str], Checkpoint],
    wanted: str,
    precision: str,
    compiled: bool | None,
    threads: int | None,
    prompts: tuple[str, ...],
    length: int,
    as_json: bool,
) -> None:
    """Train a model (needs PyTorch).

    From scratch, or --from a model further. What comes of it is a folder with model.safetensors,
    config.json and tokenizer.json in Hugging Face form, a model card, log/ and figure/. It always
    has the best model so far; Ctrl-C saves and ends, and --resume goes on. What is not given is
    the preset's. Several processes of torchrun train one model together.
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
    if chosen.needs_model and origin is None:
        raise UsageError(f"{preset} trains a model further", "Name it: --from SOURCE")
    start = None if origin is None else open_start(open_source(origin))
    settings = chosen.settings
    if start is not None:
        settings = start.settings(settings, choices.settings)
    if settings.n_embd % settings.n_head:
        raise UsageError(
            f"a width of {settings.n_embd} can't be shared by {settings.n_head} heads",
            "Make --n-embd a multiple of --n-head.",
        )
    folder = Path(preset) if out is None else out
    text = data.find(chosen.data, chosen.shares, say)
    prepared = corpus.prepare(
        text,
        settings.n_ctx,
        chosen.tokenizer,
        chosen.vocab_size,
        None if start is None else start.vocabulary,
    )
    for prompt in prompts:  # a mistake in one must not wait for the end of the training
        if not len(prepared.vocabulary.encode(prompt)):
            raise UsageError("a prompt is empty", "Give --prompt a text, or leave it out.")
    device = open_device(wanted, precision, threads, compiled)
    if device.first:
        export.open_folder(folder, resume)
    watcher = ProgressWatcher(settings, prepared.vocabulary.unit, quiet=not device.first)
    with watcher.watching():
        result = loop.run(
            prepared,
            settings,
            folder,
            watcher,
            device,
            resume=resume,
            start=start,
            prompts=prompts,
            length=length,
        )
    device.close()
    if not device.first:
        return
    if not figure.write(folder, prepared.vocabulary.unit, result.test_loss):
        say("No figure was drawn: that needs matplotlib (pip install 'icgpt[train]').")
    known = text.sha256 == data.SHAKESPEARE_SHA256 and PRESETS[preset].data == data.TINY
    command = ["icgpt", "train", preset, *choices.words(known)]
    if origin is not None:
        command += ["--from", origin]
    name = folder.resolve().name
    before = None if start is None else start.name
    words = card.card(name, shlex.join(command), prepared, settings, result, before)
    export.write_card(folder, words)
    value = {"folder": str(folder), "data_sha256": text.sha256, **asdict(result)}
    test = "" if result.test_loss is None else f"testing loss {result.test_loss:.4f}, "
    line = (
        f"{folder}: validation loss {result.validation_loss:.4f}, {test}training loss "
        f"{result.train_loss:.4f}, step {result.best_iteration:,} of {result.iterations:,}"
    )
    answer(as_json, value, "\n\n".join([line, *(f">> {one}" for one in result.samples)]))
    # As a path: a bare name may be that of the model in the box.
    say(f"Put it into a canister with: icgpt upload model {shlex.quote(str(folder.resolve()))}")
    if result.interrupted:
        ctx.exit(INTERRUPTED)

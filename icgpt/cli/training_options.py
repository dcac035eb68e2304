"""The options of `icgpt train`, in groups, and what a command line says with them.

What is not given is the preset's; what is given is told again in the model card's command.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from icgpt.cli.help import GroupedOption
from icgpt.train.presets import ADAMW, GELU, GELU_NEW, MUON, Preset
from icgpt.train.vocabulary import BYTES, KINDS

F = TypeVar("F", bound=Callable[..., Any])

_COUNT: Final = click.IntRange(min=1)
_SHARE: Final = click.FloatRange(min=0, max=1, max_open=True)
_RATE: Final = click.FloatRange(min=0, min_open=True)

# Group, option, the setting that it changes, type, what it means.
_SETTINGS: Final = (
    ("Model", "--n-layer", "n_layer", _COUNT, "Layers."),
    ("Model", "--n-head", "n_head", _COUNT, "Heads in each layer."),
    ("Model", "--n-embd", "n_embd", _COUNT, "Width."),
    ("Model", "--block-size", "n_ctx", _COUNT, "Tokens that the model sees at once (--n-ctx)."),
    ("Model", "--dropout", "dropout", _SHARE, "Part of the activations that is dropped."),
    ("Model", "--activation", "activation", click.Choice((GELU_NEW, GELU)), "Form of GELU."),
    ("Learning", "--max-iters", "max_iters", _COUNT, "Steps to train."),
    ("Learning", "--batch-size", "batch", _COUNT, "Windows in a batch."),
    ("Learning", "--grad-accum", "grad_accum", _COUNT, "Batches in a step."),
    ("Learning", "--optimizer", "optimizer", click.Choice((MUON, ADAMW)), "Of the matrices."),
    ("Learning", "--learning-rate", "learning_rate", _RATE, "AdamW's, at its peak."),
    ("Learning", "--matrix-lr", "matrix_lr", _RATE, "Muon's, at its peak."),
    ("Learning", "--min-lr", "min_lr", _SHARE, "Part of the rates that is left at the end."),
    ("Learning", "--warmup-iters", "warmup", click.IntRange(min=0), "Steps to the peak."),
    ("Learning", "--beta2", "beta2", _SHARE, "AdamW's memory of squared gradients."),
    ("Learning", "--weight-decay", "weight_decay", click.FloatRange(min=0), "Of matrices."),
    ("Learning", "--grad-clip", "clip", _RATE, "Longest gradient."),
    ("Learning", "--eval-interval", "eval_every", _COUNT, "Steps between two evaluations."),
    (
        "Learning",
        "--patience",
        "patience",
        click.IntRange(min=0),
        "End after so many evaluations without a better loss; 0: never.",
    ),
    ("Learning", "--seed", "seed", click.IntRange(min=0), "The same seed gives the same run."),
)


def _shares(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    """Two or three whole numbers above 0 that make 100."""
    if value is None:
        return None
    parts = value.split("/")
    numbers = tuple(int(part) for part in parts if part.isdecimal())
    if len(parts) not in (2, 3) or len(numbers) != len(parts) or 0 in numbers:
        raise click.BadParameter("it must look like 90/10 or 80/10/10")
    if sum(numbers) != 100:
        raise click.BadParameter("the shares must make 100")
    return numbers


@dataclass(frozen=True)
class Choices:
    """What a command line says about the run; None where it says nothing."""

    settings: dict[str, Any] = field(default_factory=dict)
    data: str | None = None
    tokenizer: str | None = None
    vocab_size: int | None = None
    shares: tuple[int, ...] | None = None

    def preset(self, preset: Preset) -> Preset:
        """A preset as it is with these choices."""
        return replace(
            preset,
            settings=preset.settings.changed(**self.settings),
            tokenizer=self.tokenizer or preset.tokenizer,
            vocab_size=self.vocab_size or preset.vocab_size or 4096,
            data=self.data or preset.data,
            shares=self.shares or preset.shares,
        )

    def words(self, known_text: bool) -> list[str]:
        """The options that say the same; a text that everybody knows needs no name."""
        words = []
        if self.data is not None and not known_text:
            words += ["--data", Path(self.data).name]
        if self.tokenizer is not None:
            words += ["--tokenizer", self.tokenizer]
        if self.vocab_size is not None:
            words += ["--vocab-size", str(self.vocab_size)]
        if self.shares is not None:
            words += ["--split", "/".join(map(str, self.shares))]
        for _, option, name, _, _ in _SETTINGS:
            if self.settings.get(name) is not None:
                words += [option, f"{self.settings[name]}"]
        return words


def training_options(function: F) -> F:
    """All options that change the run; the command gets them as `choices`."""

    @functools.wraps(function)
    def with_choices(
        *arguments: Any,
        source: str | None,
        tokenizer: str | None,
        vocab_size: int | None,
        shares: tuple[int, ...] | None,
        **options: Any,
    ) -> Any:
        settings = {name: options.pop(name) for _, _, name, _, _ in _SETTINGS}
        choices = Choices(settings, source, tokenizer, vocab_size, shares)
        return function(*arguments, choices=choices, **options)

    made = []
    for group, option, name, kind, words in _SETTINGS:
        names = (option, "--n-ctx") if name == "n_ctx" else (option,)
        what = {} if isinstance(kind, click.Choice) else {"metavar": "N"}
        made.append(_option(group, *names, name, type=kind, help=words, **what))
    data = (
        _option(
            "Text",
            "--data",
            "source",
            metavar="FILE|FOLDER|NAME",
            help="A UTF-8 file, a folder with .txt files, tiny-shakespeare or shakespeare-plays.",
        ),
        _option("Text", "--tokenizer", type=click.Choice(KINDS), help="Kind of vocabulary."),
        _option(
            "Text",
            "--vocab-size",
            metavar="N",
            type=click.IntRange(min=BYTES, max=1 << 20),
            help="Tokens of a bpe vocabulary, which is learnt from the training part.",
        ),
        _option(
            "Text",
            "--split",
            "shares",
            metavar="A/B/C",
            callback=_shares,
            help="Percent that train, validate and test. The plays are split by whole plays.",
        ),
    )
    for decorate in reversed((*data, *made)):
        with_choices = decorate(with_choices)
    return with_choices  # type: ignore[return-value]


def machine_options(function: F) -> F:
    """What computes, and how."""
    for decorate in reversed(
        (
            _option(
                "Machine",
                "--device",
                "wanted",
                type=click.Choice(("auto", "cpu", "cuda", "mps")),
                default="auto",
                help="What computes; the fastest there is when not given.",
            ),
            _option(
                "Machine",
                "--precision",
                type=click.Choice(("auto", "float32", "bfloat16")),
                default="auto",
                help="Of products: bfloat16 on CUDA, else float32, when not given.",
            ),
            _option(
                "Machine",
                "--compile/--no-compile",
                "compiled",
                default=None,
                help="Let PyTorch compile the model; done on CUDA when not given.",
            ),
            _option(
                "Machine",
                "--threads",
                metavar="N",
                type=_COUNT,
                help="CPU threads; as many as there are cores when not given.",
            ),
        )
    ):
        function = decorate(function)
    return function


def _option(group: str, *names: str, **more: Any) -> Callable[[F], F]:
    return click.option(*names, cls=GroupedOption, group=group, **more)

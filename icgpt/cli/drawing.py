"""Options of `generate`, `infer` and `chat`: how many tokens are written, and how they are drawn.

Each is named like the canister's own option, with dashes; what is left out is the canister's
default. `docs/options.md` says what each does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from icgpt.cli.common import F

NAT32 = 2**32 - 1


def at_most(most: int) -> Callable[[click.Context, click.Parameter, int | None], int | None]:
    """An upper bound that no help text needs to mention: nobody meets it on purpose."""

    def check(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
        if value is not None and value > most:
            raise click.BadParameter(f"{value} is more than {most}.", ctx, param)
        return value

    return check


def _number(name: str, metavar: str, text: str, least: int = 1, most: int = NAT32) -> Any:
    return click.option(
        name, type=click.IntRange(least), callback=at_most(most), metavar=metavar, help=text
    )


def _texts(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[str] | None:
    for text in value:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise click.BadParameter("it is not UTF-8.", ctx, param) from error
    return list(value) or None


_WHOLE = (
    _number(
        "--logprobs",
        "N",
        "With --json: log-probabilities of each token and of the likeliest N (0 to 20).",
        least=0,
    ),
    click.option("--echo", is_flag=True, default=None, help="Begin with the prompt."),
)


def drawing_options(
    tokens: int, temperature: float = 0.2, *, whole: bool = True
) -> Callable[[F], F]:
    """How many tokens are written (`tokens` when left out), and how they are drawn.

    Without `whole`, what an answer is to carry beside its new text is left aside.
    """
    options = (
        click.option(
            "-n",
            "--max-new-tokens",
            type=click.IntRange(1),
            callback=at_most(NAT32),
            default=tokens,
            show_default=True,
            metavar="N",
            help="How many tokens to write at most.",
        ),
        _number("--min-new-tokens", "N", "No end token before so many.", least=0),
        click.option(
            "-t",
            "--temperature",
            type=float,
            default=temperature,
            show_default=True,
            metavar="T",
            help="How freely to draw; 0 always takes the likeliest token.",
        ),
        _number("--top-k", "K", "Draw from the likeliest K tokens only."),
        click.option(
            "--top-p",
            type=float,
            metavar="P",
            help="Draw from the likeliest tokens that make up this probability together.",
        ),
        click.option(
            "--typical-p",
            type=float,
            metavar="P",
            help="Draw from the most typical tokens that make up this probability together.",
        ),
        click.option(
            "--repetition-penalty",
            type=float,
            metavar="X",
            help="Above 1, tokens that were there before become less likely.",
        ),
        _number("--no-repeat-ngram-size", "N", "No N tokens in a row occur twice."),
        _number(
            "--encoder-no-repeat-ngram-size", "N", "No N tokens in a row are those of the prompt."
        ),
        _number("--seed", "N", "Draws again what this seed drew.", least=0, most=2**64 - 1),
        *(_WHOLE if whole else ()),
        click.option(
            "--stats",
            is_flag=True,
            help="Say on stderr how fast it was, and what it costs on mainnet.",
        ),
    )

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


class Lines(click.types.StringParamType):
    """A text; several of them stand in the environment on a line each."""

    envvar_list_splitter = "\n"


def stop_option(function: F) -> F:
    """`--stop`."""
    option = click.option(
        "--stop",
        multiple=True,
        type=Lines(),
        callback=_texts,
        metavar="TEXT",
        help="End before this text; can be given several times.",
    )
    return option(function)


def check_logprobs(options: dict[str, Any], as_json: bool) -> None:
    """Log-probabilities have no other way out."""
    if options["logprobs"] is not None and not as_json:
        raise click.UsageError("--logprobs needs --json.")

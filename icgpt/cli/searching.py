"""Options of `generate` and `infer`: how many answers, how they are weighed, and their lengths.

Each is named like the canister's own option, with dashes; `docs/options.md` says what each does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from icgpt.cli.common import F, say, show
from icgpt.cli.drawing import NAT32, at_most

if TYPE_CHECKING:
    from icgpt.results import Completion


def _bias(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> dict[int, float] | None:
    found = {}
    for one in value:
        token, _, bias = one.partition("=")
        try:
            found[int(token)] = float(bias)
        except ValueError as error:
            raise click.BadParameter(f"'{one}' is not ID=BIAS.", ctx, param) from error
    return found or None


def _count(name: str, text: str, metavar: str = "N", least: int = 1) -> Any:
    return click.option(
        name, type=click.IntRange(least), callback=at_most(NAT32), metavar=metavar, help=text
    )


def _real(name: str, text: str, metavar: str = "X") -> Any:
    return click.option(name, type=float, metavar=metavar, help=text)


_OPTIONS = (
    _count("--max-length", "The same as -n, with the prompt's tokens counted."),
    _count("--min-length", "No end token before so many, with the prompt's counted.", least=0),
    _real("--max-time", "End with the next token after so many seconds.", "SECONDS"),
    _count("--num-beams", "Weigh so many answers against each other (up to 32)."),
    _count("--num-beam-groups", "Let groups of beams avoid each other's tokens."),
    _real("--diversity-penalty", "How much they do."),
    _real("--length-penalty", "Above 0, beams prefer longer answers.  [default: 1]"),
    click.option(
        "--early-stopping",
        type=click.Choice(["false", "true", "never"]),
        help="When beams have found enough.  [default: false]",
    ),
    _count("--num-return-sequences", "Give so many answers (up to 32)."),
    click.option(
        "--logit-bias",
        multiple=True,
        callback=_bias,
        metavar="ID=BIAS",
        help="Make a token likelier, or less (-100 to 100); can be given several times.",
    ),
    click.option(
        "--remove-invalid-values",
        is_flag=True,
        default=None,
        help="Go on where the model's numbers are broken.",
    ),
)


def search_options(function: F) -> F:
    """How many answers, how they are weighed, and their lengths."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def leave_to_the_model(options: dict[str, Any]) -> None:
    """Takes the command's own defaults out where others were asked for.

    A length with the prompt stands instead of -n, and beams are drawn only by a temperature that
    was given.
    """
    ctx = click.get_current_context()

    def given(name: str) -> bool:
        return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT

    if options["max_length"] is not None and not given("max_new_tokens"):
        options["max_new_tokens"] = None
    if (options["num_beams"] or 1) > 1 and not given("temperature"):
        options["temperature"] = None


def longest(options: dict[str, Any]) -> int:
    """Tokens that may have to be computed, for a price."""
    tokens: int = options["max_new_tokens"] or options["max_length"]
    return tokens * max(options["num_beams"] or 1, options["num_return_sequences"] or 1)


def show_all(done: Completion) -> None:
    """Prints all answers, with a line before each on stderr where there are several."""
    answers = done.sequences or []
    if len(answers) < 2:
        show(done.text or "")
        return
    for number, one in enumerate(answers, 1):
        score = "" if one.score is None else f", score {one.score:.4f}"
        say(f"{number} of {len(answers)}{score}:")
        show(one.text or "")

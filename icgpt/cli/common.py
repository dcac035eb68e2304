"""What the commands share: options, opening a canister, printing.

Options come from the environment too (ICGPT_NETWORK, ICGPT_CANISTER, ICGPT_IDENTITY, and for those
of one command ICGPT_GENERATE_SEED or the like), and from config.toml: `icgpt.cli.settings`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from icgpt.cli.completing import CANISTERS, IDENTITIES, NETWORKS

if TYPE_CHECKING:
    from icgpt.agent import Agent
    from icgpt.client import ModelCanister
    from icgpt.connect import Network
    from icgpt.errors import IcgptError
    from icgpt.fleet import Fleet
    from icgpt.project import Project
    from icgpt.results import Architecture, ModelInfo

F = TypeVar("F", bound=Callable[..., Any])

MAX_TEXT_BYTES = 2 << 20
MAX_SHOWN = 2000  # characters of an error: the words may be a stranger's


def json_option(function: F) -> F:
    """`--json`."""
    option = click.option(
        "--json",
        "as_json",
        is_flag=True,
        allow_from_autoenv=False,  # errors are told in JSON by the same flag, wherever it stands
        help="Print one JSON document.",
    )
    return option(function)


def network_option(function: F) -> F:
    """`--network`."""
    option = click.option(
        "--network",
        envvar="ICGPT_NETWORK",
        metavar="local|ic|URL",
        shell_complete=NETWORKS,
        help="The network; the local one when left out.",
    )
    return option(function)


def identity_option(function: F) -> F:
    """`--identity`."""
    option = click.option(
        "--identity",
        envvar="ICGPT_IDENTITY",
        metavar="PEM|anonymous",
        shell_complete=IDENTITIES,
        help="Who calls; icgpt's own key when left out.",
    )
    return option(function)


def count_option(
    *names: str,
    default: int,
    text: str,
    least: int = 1,
    most: int | None = None,
    envvar: Sequence[str] | None = None,
) -> Callable[[F], F]:
    """An option that is a number and has a default which its help shows."""
    return click.option(
        *names,
        type=click.IntRange(least, most),
        default=default,
        show_default=True,
        metavar="N",
        help=text,
        envvar=envvar,
    )


def yes_option(function: F) -> F:
    """`--yes`."""
    option = click.option(
        "--yes",
        "-y",
        is_flag=True,
        allow_from_autoenv=False,  # said once, for one call
        help="Don't ask.",
    )
    return option(function)


def canister_option(function: F) -> F:
    """`--canister`."""
    option = click.option(
        "-c",
        "--canister",
        envvar="ICGPT_CANISTER",
        default="model",
        show_default=True,
        metavar="NAME|ID",
        help="The canister: a name of the project, or an id.",
        shell_complete=CANISTERS,
    )
    return option(function)


def calling_options(function: F) -> F:
    """All that a command needs to call a canister, and how it is told."""
    for option in (json_option, identity_option, network_option, canister_option):
        function = option(function)
    return function


@contextmanager
def opened(network: str | None, identity: str | None) -> Iterator[tuple[Agent, Network, Project]]:
    """An agent on a network, and the project that the current folder lies in."""
    from icgpt import connect, project
    from icgpt.errors import UsageError
    from icgpt.identity import load

    who = None if identity is None else load(identity)
    target = connect.resolve(network)
    if target.mainnet and who is None:
        # The key that is made on first use has no rights there, and nothing to lose.
        raise UsageError(
            "on mainnet it must be said who calls",
            "Name your key with --identity PEM, or say --identity anonymous.",
        )
    with connect.connect(target, who or load()) as agent:
        yield agent, target, project.find()


@contextmanager
def opened_model(
    canister: str, network: str | None, identity: str | None
) -> Iterator[ModelCanister]:
    """A model canister."""
    from icgpt.client import ModelCanister

    with opened(network, identity) as (agent, target, project):
        yield ModelCanister(agent, project.resolve(canister, target.name))


def all_models(place: tuple[Agent, Network, Project], canister: str) -> dict[str, ModelCanister]:
    """All model canisters of a fleet by their names; one, where the name is one canister's."""
    from icgpt.client import ModelCanister

    agent, target, project = place
    ids = project.fleet(canister, target.name) or {canister: project.resolve(canister, target.name)}
    return {name: ModelCanister(agent, id_) for name, id_ in ids.items()}


@contextmanager
def opened_writer(
    canister: str, network: str | None, identity: str | None
) -> Iterator[ModelCanister | Fleet]:
    """What writes by this name: a model canister, or the fleet that it is the first of."""
    with opened(network, identity) as place:
        yield writer(place, canister)


def writer(
    place: tuple[Agent, Network, Project], canister: str, stay: bool = False
) -> ModelCanister | Fleet:
    """The same, where it is open; with `stay` a fleet asks one canister as long as it can."""
    from icgpt import fleet_members
    from icgpt.client import ModelCanister
    from icgpt.fleet import Fleet

    def moved(name: str, error: IcgptError) -> None:
        aside(f"{name} does not take it ({error.message.rstrip('.')}): another one is asked.")

    agent, target, project = place
    members = project.fleet(canister, target.name)
    if members:
        return Fleet(agent, fleet_members.in_any_order(members), moved, stay)
    return ModelCanister(agent, project.resolve(canister, target.name))


def canisters_of(writer: ModelCanister | Fleet) -> int:
    """How many canisters answer."""
    from icgpt.fleet import Fleet

    return len(writer.members.all) if isinstance(writer, Fleet) else 1


# Control characters, and those that reverse the order of what is shown: a canister, a server or a
# file's name must not move the cursor, recolour the screen or disguise what stands on it.
# Surrogates stand for the bytes of an argument that is no UTF-8, and can't be written at all.
_STEERING = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
} | {
    code: f"\\u{code:04x}"
    for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000))
}


def printable(text: str) -> str:
    """A foreign text with everything made visible that would steer a terminal."""
    return text.translate(_STEERING)


def at_terminal(*streams: TextIO | None) -> bool:
    """Whether all of these lead to a terminal; one that was closed does not."""
    return all(stream is not None and stream.isatty() for stream in streams)


def show(text: str, newline: bool = True) -> None:
    """Prints a text as the answer: as it is, but made harmless where a terminal reads it."""
    to_people = at_terminal(sys.stdout)
    # Without `color`, click takes escape sequences out of what goes into a pipe.
    click.echo(printable(text) if to_people else text, nl=newline, color=True)


def answer(as_json: bool, value: Any, text: str) -> None:
    """Prints the answer: `value` as JSON, or `text` for people."""
    # Plain ASCII: it can be written in every locale, and holds nothing that steers a terminal.
    if as_json:
        click.echo(json.dumps(value, allow_nan=False))
    else:
        show(text)


def say(text: str) -> None:
    """Tells people what happens; never part of the answer."""
    click.echo(fitted(printable(text)), err=True)


def fitted(text: str) -> str:
    """A text for people, its lines broken between words where a terminal would break them."""
    if not at_terminal(sys.stderr):
        return text
    width = shutil.get_terminal_size().columns
    lines = text.split("\n")
    return "\n".join(line if len(line) <= width else _broken(line, width) for line in lines)


def _broken(line: str, width: int) -> str:
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


def error_text(message: str, hint: str | None) -> str:
    """An error on one line, with what to do next."""
    message = " ".join(message.split()).rstrip(".")
    if len(message) > MAX_SHOWN:
        message = message[:MAX_SHOWN] + "…"
    stop = "" if message.endswith(("?", "!", "…")) else "."
    return printable(f"{message}{stop} {hint}" if hint else message)


def aside(text: str, colour: str | None = None) -> None:
    """Tells people something that stands back behind the answer, or in a colour."""
    text = fitted(printable(text))
    if not os.environ.get("NO_COLOR"):  # https://no-color.org
        text = click.style(text, fg=colour) if colour else click.style(text, dim=True)
    click.echo(text, err=True)


def can_ask() -> bool:
    """Whether somebody sees a question and can answer it."""
    return at_terminal(sys.stdin, sys.stderr)


def confirm(question: str, yes: bool, as_json: bool, otherwise: IcgptError) -> None:
    """Asks, unless `--yes` was given; raises `otherwise` when the answer is no.

    Only a person at a terminal can be asked; anyone else must have said it before.
    """
    if yes:
        return
    if as_json:
        raise click.UsageError("With --json nobody is asked: say --yes.")
    if not can_ask():
        raise click.UsageError(f"Nobody is here to be asked: {question} Say --yes.")
    if not click.confirm(printable(question), err=True):
        raise otherwise


def before_spending(target: Network, what: str, cycles: int, yes: bool, as_json: bool) -> None:
    """Says what something costs on mainnet and asks whether to go on; elsewhere it is free."""
    from icgpt.cost import usd
    from icgpt.errors import IcgptError

    if not target.mainnet:
        return
    say(
        f"{what} costs up to {count_text(cycles)} cycles ({usd(cycles):.4f} USD) of the canister's."
    )
    confirm("Go on?", yes, as_json, IcgptError("nothing was spent", "Say y, or --yes, to go on."))


def tell_price(
    target: Network, model: ModelCanister | Fleet, prompt_tokens: int, tokens: int
) -> None:
    """Says what an answer costs on mainnet, before it is asked for; elsewhere it is free."""
    from icgpt.cost import generation_cycles, usd
    from icgpt.errors import IcgptError
    from icgpt.measure import instructions

    if not target.mainnet:
        return
    try:
        token, prompt_token = instructions(model, 2, 4)
    except IcgptError:
        return  # who may not ask is told so by the answer; a model too large has no such figure
    work = tokens * token + prompt_tokens * prompt_token
    cycles = generation_cycles(work, 4 * prompt_tokens)
    aside(
        f"An answer of {tokens:,} tokens costs about {count_text(cycles)} cycles "
        f"({usd(cycles):.2g} USD) of the canister's."
    )


def bytes_text(count: float) -> str:
    """A number of bytes for people."""
    if count < 1000:
        return f"{count:.0f} bytes"
    for size, unit in ((1e6, "kB"), (1e9, "MB")):
        if count < 0.99995 * size:  # what would be rounded to 1000.0 belongs to the next unit
            return f"{1000 * count / size:.1f} {unit}"
    return f"{count / 1e9:.2f} GB"


def model_text(info: ModelInfo, shape: Architecture) -> str:
    """The model of a canister in a few words."""
    kind = kind_text(info, shape)
    return f"{info.name}: {kind}" if info.name else kind


def kind_text(info: ModelInfo, shape: Architecture) -> str:
    """What there is to say of a model beside its name."""
    return f"{shape.family}, {count_text(shape.parameters)} parameters in {info.precision}"


def count_text(count: float) -> str:
    """A large number for people: 12.3 million."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if count >= 0.9995 * size:  # what would be rounded to 1000 belongs to the next word
            return f"{count / size:.3g} {word}"
    return f"{count:,.0f}"


def read_principal(text: str) -> bytes:
    """A principal that was given as an argument."""
    from icgpt.errors import UsageError
    from icgpt.principal import from_text

    try:
        return from_text(text)
    except ValueError as error:
        raise UsageError(
            str(error), "Principals look like 2vxsx-fae; `icgpt status` shows yours."
        ) from error


def read_text(text: str | None) -> str:
    """A text argument; "-", or nothing while something is piped in, is stdin."""
    if text is None and (sys.stdin is None or at_terminal(sys.stdin)):
        raise click.UsageError("Missing argument 'TEXT'; '-' reads it from stdin.")
    if text is not None and text != "-":
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise click.UsageError("TEXT is not UTF-8.") from error
        return text
    data = b"" if sys.stdin is None else sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise click.UsageError("The text on stdin is larger than a message may be (2 MiB).")
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise click.UsageError("The text on stdin is not UTF-8.") from error

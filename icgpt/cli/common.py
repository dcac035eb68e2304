"""What the commands share: options, opening a canister, printing.

Options come from the environment too: ICGPT_NETWORK, ICGPT_CANISTER, ICGPT_IDENTITY.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from icgpt.agent import Agent
    from icgpt.client import ModelCanister
    from icgpt.connect import Network
    from icgpt.project import Project

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """`--json`."""
    option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    return option(function)


def network_option(function: F) -> F:
    """`--network`."""
    option = click.option(
        "--network",
        envvar="ICGPT_NETWORK",
        metavar="local|ic|URL",
        help="The network; the local one when left out.",
    )
    return option(function)


def identity_option(function: F) -> F:
    """`--identity`."""
    option = click.option(
        "--identity",
        envvar="ICGPT_IDENTITY",
        metavar="PEM|anonymous",
        help="Who calls; icgpt's own key when left out.",
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
    )
    return option(function)


def calling_options(function: F) -> F:
    """All that a command needs to call a canister."""
    for option in (json_option, identity_option, network_option, canister_option):
        function = option(function)
    return function


@contextmanager
def opened(network: str | None, identity: str | None) -> Iterator[tuple[Agent, Network, Project]]:
    """An agent on a network, and the project that the current folder lies in."""
    from icgpt import connect, project
    from icgpt.identity import load

    who = load(identity)
    target = connect.resolve(network)
    with connect.connect(target, who) as agent:
        yield agent, target, project.find()


@contextmanager
def opened_model(
    canister: str, network: str | None, identity: str | None
) -> Iterator[ModelCanister]:
    """A model canister."""
    from icgpt.client import ModelCanister

    with opened(network, identity) as (agent, target, project):
        yield ModelCanister(agent, project.resolve(canister, target.name))


def answer(as_json: bool, value: Any, text: str) -> None:
    """Prints the answer: `value` as JSON, or `text` for people."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False) if as_json else text)


def say(text: str) -> None:
    """Tells people what happens; never part of the answer."""
    click.echo(text, err=True)


def bytes_text(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def count_text(count: float) -> str:
    """A large number for people: 12.3 million."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:.3g} {word}"
    return f"{count:,.0f}"


def read_text(text: str | None) -> str:
    """A text argument; "-", or nothing while something is piped in, is stdin."""
    import sys

    if text is None and sys.stdin.isatty():
        raise click.UsageError("Missing argument 'TEXT'; '-' reads it from stdin.")
    if text is not None and text != "-":
        return text
    limit = 2 << 20
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise click.UsageError("The text on stdin is larger than a message may be (2 MiB).")
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise click.UsageError("The text on stdin is not UTF-8.") from error

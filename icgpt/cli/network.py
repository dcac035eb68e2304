"""`icgpt network`: the local Internet Computer that comes with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from icgpt.cli.common import answer, json_option, say
from icgpt.cli.help import Command, Group

if TYPE_CHECKING:
    from icgpt.network import NetworkInfo


@click.group(
    cls=Group, examples=["icgpt network start", "icgpt network status --json", "icgpt network stop"]
)
def network() -> None:
    """Start and stop the local network.

    It runs in the background and keeps its state until `icgpt network reset`.
    """


def _json(info: NetworkInfo) -> dict[str, Any]:
    return {
        "running": True,
        "url": info.url,
        "port": info.port,
        "pid": info.pid,
        "root_key": info.root_key.hex(),
    }


@network.command(cls=Command, examples=["icgpt network start", "icgpt network start --port 8000"])
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="4943, or a free one if that is taken.",
)
@json_option
def start(port: int | None, as_json: bool) -> None:
    """Start the local network in the background.

    Does nothing when it runs already.
    """
    from icgpt import network as room

    state = room.default_state_dir()
    running = room.status(state)
    if running is not None:
        say("The local network is running already.")
        info = running
    else:
        info = room.start(state, port)
    answer(as_json, _json(info), info.url)


@network.command(cls=Command, examples=["icgpt network stop"])
@json_option
def stop(as_json: bool) -> None:
    """Stop the local network; its canisters are kept."""
    from icgpt import network as room

    state = room.default_state_dir()
    say("Stopped." if room.stop(state) else "The local network wasn't running.")
    if as_json:
        answer(as_json, {"running": False}, "")


@network.command(cls=Command, examples=["icgpt network status", "icgpt network status --json"])
@json_option
def status(as_json: bool) -> None:
    """Say whether the local network runs, and where.

    The exit code is 3 when it doesn't.
    """
    from icgpt import network as room
    from icgpt.errors import NetworkError

    info = room.status(room.default_state_dir())
    if info is None:
        raise NetworkError("the local network isn't running", "Start it with: icgpt network start")
    answer(as_json, _json(info), f"running at {info.url}")


@network.command(cls=Command, examples=["icgpt network reset --yes"])
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@json_option
def reset(yes: bool, as_json: bool) -> None:
    """Stop the local network and forget all its canisters."""
    from icgpt import network as room
    from icgpt.errors import IcgptError

    state = room.default_state_dir()
    if not yes and as_json:
        raise click.UsageError("With --json nobody is asked: say --yes.")
    if not yes and not click.confirm(
        f"Remove all canisters of the local network in {state}?", err=True
    ):
        raise IcgptError("nothing was removed", "Say y to remove them.")
    room.reset(state)
    say("The local network is empty.")
    if as_json:
        answer(as_json, {"running": False}, "")


@network.command(cls=Command, examples=["icgpt network trust http://127.0.0.1:8000"])
@click.argument("url")
@json_option
def trust(url: str, as_json: bool) -> None:
    """Trust a network's new root key.

    A network's key is remembered when it is first used, and another one is refused later. When
    that network was set up anew, this makes its new key the one to remember.
    """
    from icgpt import connect
    from icgpt.agent import fetch_root_key

    address = connect.checked_url(url)
    key = fetch_root_key(address)
    connect.pin(address, key)
    say(f"The root key of {address} is trusted from now on.")
    answer(as_json, {"url": address, "root_key": key.hex()}, key.hex())

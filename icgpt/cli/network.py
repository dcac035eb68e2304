"""`icgpt network`: the local Internet Computer that comes with the package."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icgpt.cli.common import answer, confirm, json_option, say, yes_option
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


_state_dir_option = click.option(
    "--state-dir",
    envvar="ICGPT_STATE_DIR",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the network's state is kept, instead of the usual place.",
)


def _folder(chosen: Path | None) -> Path:
    from icgpt import network as room

    return chosen or room.default_state_dir()


def _forget(folder: Path, yes: bool, as_json: bool) -> None:
    """Removes all that a network has kept; asks, unless that was said."""
    from icgpt import network as room
    from icgpt.errors import IcgptError

    question = f"Remove all canisters of the local network in {folder}?"
    confirm(question, yes, as_json, IcgptError("nothing was removed", "Say y to remove them."))
    room.reset(folder)


@network.command(
    cls=Command,
    examples=[
        "icgpt network start",
        "icgpt network start --port 8000 --clean --yes",
        "icgpt network start --foreground --state-dir ./network",
    ],
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="4943, or a free one if that is taken.",
)
@_state_dir_option
@click.option(
    "--background/--foreground",
    default=True,
    help="Return once it runs (the default), or stay until Ctrl-C.",
)
@click.option("--clean", is_flag=True, help="Forget all canisters of earlier runs first; asks.")
@click.option(
    "--sync",
    is_flag=True,
    help="Wait for the disk at each message: slower, but a power failure loses nothing.",
)
@yes_option
@json_option
def start(
    port: int | None,
    state_dir: Path | None,
    background: bool,
    clean: bool,
    sync: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Start the local network.

    Does nothing when it runs already.
    """
    from icgpt import network as room

    folder = _folder(state_dir)
    if clean:
        _forget(folder, yes or not room.has_canisters(folder), as_json)
    running = room.status(folder)
    if running is not None:
        say("The local network is running already.")
        info = running
    elif not background:
        say("The local network runs until Ctrl-C.")
        with suppress(KeyboardInterrupt):  # while it starts; later it ends by itself
            room.start(folder, port, background=False, sync=sync)
        return
    else:
        info = room.start(folder, port, sync=sync)
    answer(as_json, _json(info), info.url)


@network.command(cls=Command, examples=["icgpt network stop"])
@_state_dir_option
@json_option
def stop(state_dir: Path | None, as_json: bool) -> None:
    """Stop the local network; its canisters are kept."""
    from icgpt import network as room

    say("Stopped." if room.stop(_folder(state_dir)) else "The local network wasn't running.")
    if as_json:
        answer(as_json, {"running": False}, "")


@network.command(cls=Command, examples=["icgpt network status", "icgpt network status --json"])
@_state_dir_option
@json_option
def status(state_dir: Path | None, as_json: bool) -> None:
    """Say whether the local network runs, and where.

    The exit code is 3 when it doesn't.
    """
    from icgpt import network as room
    from icgpt.errors import NetworkError

    info = room.status(_folder(state_dir))
    if info is None:
        raise NetworkError("the local network isn't running", "Start it with: icgpt network start")
    answer(as_json, _json(info), f"running at {info.url}")


@network.command(cls=Command, examples=["icgpt network reset --yes"])
@_state_dir_option
@yes_option
@json_option
def reset(state_dir: Path | None, yes: bool, as_json: bool) -> None:
    """Stop the local network and forget all its canisters."""
    _forget(_folder(state_dir), yes, as_json)
    say("The local network is empty.")
    if as_json:
        answer(as_json, {"running": False}, "")


@network.command(cls=Command, examples=["icgpt network launcher"])
@json_option
def launcher(as_json: bool) -> None:
    """Print the program by which `icp network start` starts this network.

    Give its path to icp in the variable ICP_CLI_NETWORK_LAUNCHER_PATH; icp then starts and stops
    networks as it does its own, with the ports and folders that icp.yaml names.
    """
    from icgpt import network as room
    from icgpt.replica.launcher import write_program

    program = write_program(room.default_state_dir())
    answer(as_json, {"launcher": str(program)}, str(program))


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

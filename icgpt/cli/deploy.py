"""`icgpt deploy`: a canister with our code."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from icgpt.cli.common import (
    answer,
    before_spending,
    canister_option,
    identity_option,
    json_option,
    network_option,
    opened,
    read_principal,
    say,
    yes_option,
)
from icgpt.cli.help import Command


@click.command(
    cls=Command,
    examples=[
        "icgpt deploy",
        "icgpt deploy --network ic --identity me.pem --canister-id uc7oy-…-cai",
        "icgpt deploy --mode reinstall",
    ],
)
@canister_option
@click.option("--canister-id", metavar="ID", help="Use this canister, and remember it by its name.")
@click.option(
    "--mode",
    type=click.Choice(["auto", "install", "reinstall", "upgrade"]),
    default="auto",
    show_default=True,
    help="reinstall drops the model that is in the canister.",
)
@click.option(
    "--wasm", type=click.Path(path_type=Path), help="The module; the built one if left out."
)
@yes_option
@network_option
@identity_option
@json_option
def deploy(
    canister: str,
    canister_id: str | None,
    mode: str,
    wasm: Path | None,
    yes: bool,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Create a canister, or bring its code up to date.

    On the local network the canister is created, and anyone may use it. On mainnet it must exist
    and hold cycles, and nobody but you may use it until `icgpt access public on`; what the
    installation costs is said first, and asked.
    """
    from icgpt import deploy as room
    from icgpt.principal import to_text
    from icgpt.project import find

    given = read_principal(canister_id) if canister_id else None
    module = room.read_wasm(room.find_wasm(find(), wasm))
    with opened(network, identity) as (agent, target, project):

        def agree(cycles: int) -> None:
            before_spending(target, "Installing the code", cycles, yes, as_json)

        done = room.deploy(
            agent, target, project, canister, module, cast("room.Mode", mode), given, say, agree
        )
    text = to_text(done.canister_id)
    if done.action == "none":
        say("Nothing to do: the canister runs this code already.")
    if done.made_public:
        say("Public mode is on: anyone on this network may use it.")
    value = {
        "canister": canister,
        "canister_id": text,
        "created": done.created,
        "action": done.action,
        "module_hash": done.module_hash.hex(),
        "made_public": done.made_public,
        "files": [str(path) for path in done.files],
    }
    answer(as_json, value, text)

"""`icgpt deploy`: a canister with our code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from icgpt.cli.common import (
    answer,
    before_spending,
    canister_option,
    confirm,
    identity_option,
    json_option,
    network_option,
    opened,
    read_principal,
    say,
    yes_option,
)
from icgpt.cli.help import Command

if TYPE_CHECKING:
    from icgpt import deploy as room
    from icgpt.connect import Network


@click.command(
    cls=Command,
    examples=[
        "icgpt deploy",
        "icgpt deploy --network ic --identity me.pem --canister-id uc7oy-…-cai",
        "icgpt deploy --mode reinstall --yes",
        "icgpt deploy --replicas 3",
    ],
)
@canister_option
@click.option(
    "--replicas",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="So many canisters that answer together: NAME, NAME-2, …; as many as there are already "
    "when left out.",
)
@click.option("--canister-id", metavar="ID", help="Use this canister, and remember it by its name.")
@click.option(
    "--mode",
    type=click.Choice(["auto", "install", "reinstall", "upgrade"]),
    default="auto",
    show_default=True,
    help="reinstall drops the model that is in the canister, and all else; asks first.",
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
    replicas: int | None,
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

    With --replicas several canisters answer to one name: `icgpt upload` gives the model to each of
    them, and `icgpt generate` asks whichever is free.
    """
    from icgpt import deploy as room
    from icgpt.principal import to_text
    from icgpt.project import find

    given = read_principal(canister_id) if canister_id else None
    if given and replicas:
        raise click.UsageError(
            "--canister-id is one canister's: name the others with --canister NAME-2 and so on."
        )
    module = room.read_wasm(room.find_wasm(find(), wasm))
    with opened(network, identity) as (agent, target, project):

        def agree(cycles: int) -> None:
            before_spending(target, "Installing the code", cycles, yes, as_json)

        how = cast("room.Mode", mode)
        count = replicas or len(project.fleet(canister, target.name))
        if how == "reinstall":
            members = room.fleet_names(canister, 1 if given else max(count, 1))
            ids = {one: given or project.lookup(one, target.name) for one in members}
            full = [name for name, one in ids.items() if one and agent.module_hash(one)]
            _before_dropping(full, target, yes, as_json)
        if given is None and count > 1:
            fleet = room.deploy_fleet(
                agent, target, project, canister, count, module, how, say, agree
            )
            _tell_fleet(as_json, canister, fleet)
            return
        done = room.deploy(agent, target, project, canister, module, how, given, say, agree)
        if replicas == 1:
            project.remember_fleet(canister, target.name, [canister])
    if done.action == "none":
        say("Nothing to do: the canister runs this code already.")
    if done.made_public:
        say("Public mode is on: anyone on this network may use it.")
    answer(as_json, _json(canister, done), to_text(done.canister_id))


def _before_dropping(names: list[str], target: Network, yes: bool, as_json: bool) -> None:
    """Asks before the code of canisters is installed anew, which empties them."""
    from icgpt.errors import IcgptError

    if names:
        what = f"Drop the model, the jobs and the lists of users in {', '.join(names)}"
        nothing = IcgptError("nothing was dropped", "`--mode upgrade` keeps what is there.")
        confirm(f"{what}, on '{target.name}'?", yes, as_json, nothing)


def _tell_fleet(as_json: bool, name: str, fleet: dict[str, room.Deployment]) -> None:
    from icgpt.principal import to_text

    changed = sum(one.action != "none" for one in fleet.values())
    say(f"{len(fleet)} canisters answer to '{name}'; {changed} of them got other code.")
    members = [_json(member, done) for member, done in fleet.items()]
    text = "\n".join(to_text(one.canister_id) for one in fleet.values())
    answer(as_json, {**members[0], "replicas": members}, text)


def _json(name: str, done: room.Deployment) -> dict[str, Any]:
    from icgpt.principal import to_text

    return {
        "canister": name,
        "canister_id": to_text(done.canister_id),
        "created": done.created,
        "action": done.action,
        "module_hash": done.module_hash.hex(),
        "made_public": done.made_public,
        "files": [str(path) for path in done.files],
    }

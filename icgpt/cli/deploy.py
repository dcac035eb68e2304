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
    from icgpt.page import Page


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
@click.option("--no-page", is_flag=True, help="Leave the page's canister out.")
@click.option(
    "--page-id", metavar="ID", help="Use this canister for the page, and remember it by its name."
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
    no_page: bool,
    page_id: str | None,
    wasm: Path | None,
    yes: bool,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Create a canister and its page, or bring their code up to date.

    The page is a canister of its own, `frontend` beside `model`; its address is said in the end.

    On the local network the canister is created, and anyone may use it. On mainnet it must exist
    and hold cycles, and nobody but you may use it until `icgpt access public on`; what the
    installation costs is said first, and asked.

    With --replicas several canisters answer to one name: `icgpt upload` gives the model to each of
    them, and `icgpt generate` asks whichever is free.
    """
    from icgpt import deploy as room
    from icgpt import page as page_room
    from icgpt.project import find

    given = read_principal(canister_id) if canister_id else None
    if given and replicas:
        raise click.UsageError(
            "--canister-id is one canister's: name the others with --canister NAME-2 and so on."
        )
    if no_page and page_id:
        raise click.UsageError("--no-page leaves the page out, and --page-id names its canister.")
    given_page = read_principal(page_id) if page_id else None
    home = find()
    module = room.read_wasm(room.find_wasm(home, wasm))
    built = None if no_page else page_room.find_module(home)
    page_module = room.read_wasm(built) if built else None
    with opened(network, identity) as (agent, target, project):

        def agree(cycles: int) -> None:
            before_spending(target, "Installing the code", cycles, yes, as_json)

        def agree_to_page(cycles: int) -> None:
            before_spending(target, "Installing the page", cycles, yes, as_json)

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
            value, text = _tell_fleet(canister, fleet)
            first = fleet[canister].canister_id
        else:
            done = room.deploy(agent, target, project, canister, module, how, given, say, agree)
            if replicas == 1:
                project.remember_fleet(canister, target.name, [canister])
            value, text = _tell(canister, done)
            first = done.canister_id
        value["page"] = None
        if page_module is not None:
            page = page_room.deploy_page(
                agent, target, project, canister, first, page_module, given_page, say, agree_to_page
            )
            value["page"] = _tell_page(canister, page)
    answer(as_json, value, text)


def _before_dropping(names: list[str], target: Network, yes: bool, as_json: bool) -> None:
    """Asks before the code of canisters is installed anew, which empties them."""
    from icgpt.errors import IcgptError

    if names:
        what = f"Drop the model, the jobs and the lists of users in {', '.join(names)}"
        nothing = IcgptError("nothing was dropped", "`--mode upgrade` keeps what is there.")
        confirm(f"{what}, on '{target.name}'?", yes, as_json, nothing)


def _tell_fleet(name: str, fleet: dict[str, room.Deployment]) -> tuple[dict[str, Any], str]:
    """What is answered of a fleet, as JSON and as text."""
    from icgpt.principal import to_text

    changed = sum(one.action != "none" for one in fleet.values())
    say(f"{len(fleet)} canisters answer to '{name}'; {changed} of them got other code.")
    members = [done.to_json(member) for member, done in fleet.items()]
    text = "\n".join(to_text(one.canister_id) for one in fleet.values())
    return {**members[0], "replicas": members}, text


def _tell(name: str, done: room.Deployment) -> tuple[dict[str, Any], str]:
    """What is answered of one canister, as JSON and as text."""
    from icgpt.principal import to_text

    if done.action == "none":
        say("Nothing to do: the canister runs this code already.")
    if done.made_public:
        say("Public mode is on: anyone on this network may use it.")
    return done.to_json(name), to_text(done.canister_id)


def _tell_page(name: str, page: Page | None) -> dict[str, Any] | None:
    """Says where the page is; what is answered of it as JSON."""
    from icgpt.page import name_for

    if page is None:
        create = f"icp canister create {name_for(name)}"
        say(f"There is no page: make a canister for it, `{create}`, and name it with --page-id ID.")
        return None
    say(f"The page: {page.url}")
    return page.to_json()

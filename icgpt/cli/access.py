"""`icgpt access`: who may use a canister."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from icgpt.cli.common import F, answer, calling_options, opened_model, read_principal
from icgpt.cli.help import Command, Group

if TYPE_CHECKING:
    from icgpt.client import ModelCanister

ROLES = click.Choice(["user", "manager"])


@click.group(
    cls=Group,
    examples=[
        "icgpt access list",
        "icgpt access public on",
        "icgpt access add 2vxsx-fae",
        "icgpt access add $(dfx identity get-principal) --role manager",
    ],
)
def access() -> None:
    """Say who may use a canister.

    Users let the model write; managers also upload models and manage access. In public mode
    everyone is a user.
    """


@access.command(
    cls=Command, examples=["icgpt access public on", "icgpt access public off --canister model"]
)
@click.argument("mode", type=click.Choice(["on", "off"]))
@calling_options
def public(
    mode: str, canister: str, network: str | None, identity: str | None, as_json: bool
) -> None:
    """Let anyone use the model, or only those on the lists."""
    with opened_model(canister, network, identity) as model:
        model.set_public(mode == "on")
        _show(model, as_json)


@access.command(cls=Command, examples=["icgpt access list --json"], name="list")
@calling_options
def list_(canister: str, network: str | None, identity: str | None, as_json: bool) -> None:
    """Show managers, users and whether public mode is on."""
    with opened_model(canister, network, identity) as model:
        _show(model, as_json)


def _changing_options(function: F) -> F:
    """Whom, and which list; then all that a call needs."""
    for option in (
        calling_options,
        click.option("--role", type=ROLES, default="user", show_default=True, help="Which list."),
        click.argument("principal"),
    ):
        function = option(function)
    return function


@access.command(
    cls=Command,
    examples=["icgpt access add 2vxsx-fae", "icgpt access add 2vxsx-fae --role manager"],
)
@_changing_options
def add(
    principal: str,
    role: str,
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Put a principal on a list."""
    who = read_principal(principal)
    with opened_model(canister, network, identity) as model:
        (model.add_manager if role == "manager" else model.add_user)(who)
        _show(model, as_json)


@access.command(
    cls=Command,
    examples=["icgpt access remove 2vxsx-fae", "icgpt access remove 2vxsx-fae --role manager"],
)
@_changing_options
def remove(
    principal: str,
    role: str,
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Take a principal off a list."""
    who = read_principal(principal)
    with opened_model(canister, network, identity) as model:
        (model.remove_manager if role == "manager" else model.remove_user)(who)
        _show(model, as_json)


def _show(model: ModelCanister, as_json: bool) -> None:
    now = model.access().to_json()
    lines = [f"public    {'on' if now['public'] else 'off'}"]
    lines += [f"manager   {one}" for one in now["managers"]]
    lines += [f"user      {one}" for one in now["users"]]
    answer(as_json, now, "\n".join(lines))

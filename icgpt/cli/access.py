"""`icgpt access`: who may use a canister."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from icgpt.cli.common import answer, calling_options, opened_model
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


@access.command(
    cls=Command,
    examples=["icgpt access add 2vxsx-fae", "icgpt access add 2vxsx-fae --role manager"],
)
@click.argument("principal")
@click.option("--role", type=ROLES, default="user", show_default=True)
@calling_options
def add(
    principal: str,
    role: str,
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Put a principal on a list."""
    who = _principal(principal)
    with opened_model(canister, network, identity) as model:
        if role == "manager":
            model.add_manager(who)
        else:
            model.add_user(who)
        _show(model, as_json)


@access.command(
    cls=Command,
    examples=["icgpt access remove 2vxsx-fae", "icgpt access remove 2vxsx-fae --role manager"],
)
@click.argument("principal")
@click.option("--role", type=ROLES, default="user", show_default=True)
@calling_options
def remove(
    principal: str,
    role: str,
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Take a principal off a list."""
    who = _principal(principal)
    with opened_model(canister, network, identity) as model:
        if role == "manager":
            model.remove_manager(who)
        else:
            model.remove_user(who)
        _show(model, as_json)


def _principal(text: str) -> bytes:
    from icgpt.errors import UsageError
    from icgpt.principal import from_text

    try:
        return from_text(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _show(model: ModelCanister, as_json: bool) -> None:
    now = model.access().to_json()
    lines = [f"public    {'on' if now['public'] else 'off'}"]
    lines += [f"manager   {one}" for one in now["managers"]]
    lines += [f"user      {one}" for one in now["users"]]
    answer(as_json, now, "\n".join(lines))

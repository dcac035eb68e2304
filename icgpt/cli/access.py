"""`icgpt access`: who may use a canister."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from icgpt.cli.common import F, all_models, answer, calling_options, opened, read_principal
from icgpt.cli.help import Command, Group

if TYPE_CHECKING:
    from icgpt.client import ModelCanister

KEEP: Final = object()  # an option that was left out
MANAGER: Final = "manager"
ROLES = click.Choice(["user", MANAGER])


@click.group(
    cls=Group,
    examples=[
        "icgpt access list",
        "icgpt access public on",
        "icgpt access add 2vxsx-fae",
        "icgpt access add $(dfx identity get-principal) --role manager",
        "icgpt access quotas --public-tokens 20000",
    ],
)
def access() -> None:
    """Say who may use a canister.

    Users let the model write; managers also upload models and manage access. In public mode
    everyone is a user. Changes go to all canisters of a fleet; what is shown is its first.
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
    with opened(network, identity) as place:
        models = all_models(place, canister)
        _change(models, lambda model: model.set_public(mode == "on"))
        _show(models, as_json)


@access.command(cls=Command, examples=["icgpt access list --json"], name="list")
@calling_options
def list_(canister: str, network: str | None, identity: str | None, as_json: bool) -> None:
    """Show managers, users and whether public mode is on."""
    with opened(network, identity) as place:
        _show(all_models(place, canister), as_json)


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
    examples=[
        "icgpt access add 2vxsx-fae",
        "icgpt access add rrkah-fqaaa-aaaaa-aaaaq-cai --role manager",
    ],
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
    with opened(network, identity) as place:
        models = all_models(place, canister)
        _change(models, lambda one: (one.add_manager if role == MANAGER else one.add_user)(who))
        _show(models, as_json)


@access.command(
    cls=Command,
    examples=[
        "icgpt access remove 2vxsx-fae",
        "icgpt access remove rrkah-fqaaa-aaaaa-aaaaq-cai --role manager",
    ],
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
    with opened(network, identity) as place:
        models = all_models(place, canister)
        _change(
            models, lambda one: (one.remove_manager if role == MANAGER else one.remove_user)(who)
        )
        _show(models, as_json)


def _limit(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
    """A number, or "none" for no limit; what was left out is told apart from that."""
    if value is None:
        return KEEP
    if value == "none":
        return None
    if not (value.isascii() and value.isdecimal() and int(value) < 2**64):
        raise click.BadParameter("give a number, or none for no limit")
    return int(value)


@access.command(
    cls=Command,
    examples=[
        "icgpt access quotas",
        "icgpt access quotas --user-tokens 50000 --public-tokens none",
        "icgpt access quotas --cycles-floor 1000000000000 --json",
    ],
)
@click.option(
    "--user-tokens", metavar="N|none", callback=_limit, help="Tokens a day of each user, or none."
)
@click.option(
    "--user-jobs", type=click.IntRange(1, 2**32 - 1), metavar="N", help="Jobs of each user at once."
)
@click.option(
    "--public-tokens",
    metavar="N|none",
    callback=_limit,
    help="Tokens a day of all others, or none.",
)
@click.option(
    "--public-jobs",
    type=click.IntRange(1, 2**32 - 1),
    metavar="N",
    help="Jobs of all others at once.",
)
@click.option("--queue", type=click.IntRange(1, 2**32 - 1), metavar="N", help="Jobs that may wait.")
@click.option(
    "--cycles-floor",
    type=click.IntRange(0, 2**64 - 1),
    metavar="N",
    help="With fewer cycles no new work is taken.",
)
@calling_options
def quotas(
    user_tokens: Any,
    user_jobs: int | None,
    public_tokens: Any,
    public_jobs: int | None,
    queue: int | None,
    cycles_floor: int | None,
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Show or change how much callers may ask for.

    Each listed user has a quota of their own; all whom only public mode lets in share one, and
    managers have none. Without options it shows the quotas, and what this identity has used.
    """
    wanted = {
        "user_tokens_per_day": user_tokens,
        "user_jobs": KEEP if user_jobs is None else user_jobs,
        "public_tokens_per_day": public_tokens,
        "public_jobs": KEEP if public_jobs is None else public_jobs,
        "queue": KEEP if queue is None else queue,
        "cycles_floor": KEEP if cycles_floor is None else cycles_floor,
    }
    changes = {name: value for name, value in wanted.items() if value is not KEEP}
    with opened(network, identity) as place:
        models = all_models(place, canister)
        if changes:
            _change(models, lambda one: one.set_quotas(replace(one.quotas(), **changes)))
        first = models[next(iter(models))]
        now, usage = vars(first.quotas()), vars(first.usage())
    lines = [f"{name:<22}{'none' if v is None else f'{v:,}'}" for name, v in now.items()]
    left = "no limit" if usage["tokens_left"] is None else f"{usage['tokens_left']:,} left"
    lines.append(f"used today by this {usage['role']}: {usage['tokens_today']:,} tokens, {left}")
    answer(as_json, {**now, "usage": usage}, "\n".join(lines))


def _change(models: dict[str, ModelCanister], change: Callable[[ModelCanister], object]) -> None:
    """Changes all canisters of a fleet; one that refuses keeps no other from it, and is named."""
    from icgpt.errors import IcgptError, RefusedError, of_several

    done: list[str] = []
    failed: dict[str, IcgptError] = {}
    for name, model in models.items():
        try:
            change(model)
        except RefusedError as error:
            failed[name] = error
        else:
            done.append(name)
    if failed:
        raise of_several("take the change", done, failed, "Say it again when all of them answer.")


def _show(models: dict[str, ModelCanister], as_json: bool) -> None:
    now = models[next(iter(models))].access().to_json()
    lines = [f"public    {'on' if now['public'] else 'off'}"]
    lines += [f"manager   {one}" for one in now["managers"]]
    lines += [f"user      {one}" for one in now["users"]]
    answer(as_json, now, "\n".join(lines))

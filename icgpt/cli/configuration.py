"""`icgpt config`: which options are set, and by what."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

from icgpt.cli import COMMANDS, settings
from icgpt.cli.common import answer, json_option
from icgpt.cli.help import Command


@click.command(name="config", cls=Command, examples=["icgpt config", "icgpt config --json"])
@json_option
@click.pass_context
def configuration(ctx: click.Context, /, as_json: bool) -> None:
    """Show the settings and where they come from.

    Flags go before the environment, that before the file. The file is checked as a whole; its keys
    are the names of the flags, and so are those of the environment: max-new-tokens under [generate]
    is ICGPT_GENERATE_MAX_NEW_TOKENS.
    """
    values = settings.read()
    settings.check_names(values, tuple(COMMANDS))
    found = list(_shared(values))
    sections = dict(_sections(ctx.find_root()))
    for name, section in values.items():
        if isinstance(section, dict):
            if name not in sections:
                raise settings.SettingsError(
                    f"{settings.file_path()}: '{name}' is no command", "Correct or remove it."
                )
            settings.check_section(name, section, sections[name])
    for name, command in sections.items():
        found += _of_command(name, command, values.get(name) or {})
    path = settings.file_path()
    lines = [f"{'file':<32}{path}{'' if path.exists() else ' (there is none)'}"]
    lines += [f"{one['name']:<32}{one['value']}  ({one['origin']})" for one in found]
    answer(as_json, {"file": str(path), "exists": path.exists(), "values": found}, "\n".join(lines))


def _shared(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The four that all commands share, also when nobody has set them."""
    from icgpt.identity import default_path
    from icgpt.network import default_state_dir

    usual = {
        "network": "local",
        "canister": "model",
        "identity": str(default_path()),
        "state-dir": str(default_state_dir()),
    }
    for name in settings.SHARED:
        variable = _variable(name)
        if os.environ.get(variable):
            yield _entry(name, os.environ[variable], variable)
        elif name in values:
            yield _entry(name, values[name], "config.toml")
        else:
            yield _entry(name, usual[name], "default")


def _of_command(
    name: str, command: click.Command, section: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """What the environment or the file set for one command."""
    for key in settings.options_of(command):
        variable = _variable(f"{name}-{key}")
        if os.environ.get(variable):
            yield _entry(f"{name}.{key}", os.environ[variable], variable)
        elif key in section:
            yield _entry(f"{name}.{key}", section[key], "config.toml")


def _sections(root: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Every command that has options, by the name of its section."""
    group = root.command
    for name in COMMANDS:
        command = group.get_command(root, name) if isinstance(group, click.Group) else None
        if isinstance(command, click.Group):
            for inner in command.commands.values():
                yield f"{name}-{inner.name}", inner
        elif command is not None:
            yield name, command


def _variable(name: str) -> str:
    return "ICGPT_" + name.replace("-", "_").upper()


def _entry(name: str, value: Any, origin: str) -> dict[str, Any]:
    return {"name": name, "value": value, "origin": origin}

"""The configuration file: what options are when neither a flag nor the environment says otherwise.

    network = "ic"                # top: network, canister, identity, state-dir, for all commands
    identity = "~/me.pem"

    [generate]                    # a command's options, as its flags are called
    max-new-tokens = 100
    stop = ["JULIET:"]

    [network-start]               # a command of a group
    port = 8000

It is `config.toml` in the platform's configuration folder. A flag goes before the environment
(ICGPT_NETWORK for the shared ones, ICGPT_GENERATE_MAX_NEW_TOKENS and so on), that before the file.
Unknown names and values of a wrong type are errors that name the key.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import click

from icgpt.errors import UsageError
from icgpt.identity import config_dir

SHARED: Final = ("network", "canister", "identity", "state-dir")
STATE_DIR: Final = "ICGPT_STATE_DIR"
MAX_FILE_BYTES: Final = 1 << 20


class SettingsError(UsageError):
    """The configuration file can't be read, or holds what it should not."""

    kind = "settings"


def file_path() -> Path:
    """Where the file is, or would be."""
    return config_dir() / "config.toml"


def read() -> dict[str, Any]:
    """What the file says; nothing when there is none."""
    path = file_path()
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}", "Let it be read.") from error
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} is too large for what it should be", "Remove it.")
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}", "Correct it.") from error


def option_name(parameter: click.Parameter) -> str | None:
    """How the file calls an option, such as max-new-tokens.

    None for what it can't set: what a single call is to say, so that the environment can't either.
    """
    if not isinstance(parameter, click.Option) or not parameter.allow_from_autoenv:
        return None
    long = [one.removeprefix("--") for one in parameter.opts if one.startswith("--")]
    return long[0] if long else None


def options_of(command: click.Command) -> dict[str, click.Option]:
    """The options of a command that the file can set."""
    found = {}
    for parameter in command.params:
        name = option_name(parameter)
        if name is not None and isinstance(parameter, click.Option):
            found[name] = parameter
    return found


def section_of(context: click.Context) -> str:
    """The section of the command that is being run: its words, joined by dashes."""
    words = []
    here: click.Context | None = context
    while here is not None and here.parent is not None:
        words.append(here.info_name or "")
        here = here.parent
    return "-".join(reversed(words))


def check_names(values: dict[str, Any], commands: tuple[str, ...]) -> None:
    """Raises for what stands at the top of the file and is neither an option nor a section."""
    for name, value in values.items():
        if name in SHARED:
            if not isinstance(value, str):
                raise _wrong(name, "must be a text")
        elif not isinstance(value, dict):
            raise _wrong(name, f"is no option for all commands; those are {', '.join(SHARED)}")
        elif name not in commands and name.split("-")[0] not in commands:
            raise _wrong(name, "is no command")


def check_section(name: str, section: Any, command: click.Command) -> None:
    """Raises for what a section holds and its command has no such option for."""
    known = options_of(command)
    for key, value in section.items() if isinstance(section, dict) else ():
        if key not in known:
            raise _wrong(f"{name}.{key}", f"is no option; there are {', '.join(known)}")
        _checked(f"{name}.{key}", known[key], value)


def defaults(context: click.Context, commands: tuple[str, ...]) -> dict[str, Any]:
    """What the file says for the command of a context, checked, by the names of its parameters."""
    values = read()
    check_names(values, commands)
    name = section_of(context)
    section = values.get(name)
    known = options_of(context.command)
    check_section(name, section, context.command)
    shared = {key: values[key] for key in SHARED if key in values}
    if "state-dir" in shared:
        # The network and what it starts look for it there.
        os.environ.setdefault(STATE_DIR, str(Path(shared["state-dir"]).expanduser()))
    chosen = {**shared, **(section or {})}
    return {
        str(known[key].name): _checked(key, known[key], value)
        for key, value in chosen.items()
        if key in known
    }


def _checked(key: str, option: click.Option, value: Any) -> Any:
    """A value as click takes it; SettingsError when it is of another type or out of range."""
    if option.multiple and isinstance(value, str):
        value = [value]
    kinds: tuple[type, ...] = (str,)
    word = "a text"
    if option.is_flag:
        kinds, word = (bool,), "true or false"
    elif isinstance(option.type, click.types.IntParamType):
        kinds, word = (int,), "a whole number"
    elif isinstance(option.type, click.types.FloatParamType):
        kinds, word = (int, float), "a number"
    for one in value if option.multiple and isinstance(value, list) else [value]:
        if not isinstance(one, kinds) or (isinstance(one, bool) and bool not in kinds):
            raise _wrong(key, f"must be {word}" + (", or several" if option.multiple else ""))
    try:
        option.type_cast_value(click.Context(click.Command("check")), value)
    except click.BadParameter as error:
        raise _wrong(key, error.message.rstrip(".")) from error
    return value


def _wrong(key: str, words: str) -> SettingsError:
    return SettingsError(f"{file_path()}: '{key}' {words}", "Correct or remove that line.")

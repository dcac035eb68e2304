"""docs/reference/cli.md, from the commands as click knows them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from icgpt.cli import cli

TEST = "tests/docs/test_help_examples.py::test_examples_of_help"
HEAD = """\
# The command line

Made from the commands by `scripts/reference`; `icgpt COMMAND --help` says the same.

- The answer goes to stdout, everything else to stderr. With `--json` the answer is one JSON
  document, and an error is one under `error`.
- Exit codes: 0 done, 1 failed, 2 wrong usage, 3 network unreachable, 4 refused by the canister, 5
  an answer that could not be verified.
- Options may also stand in a file or in the environment ([settings](../settings.md)):
  `ICGPT_NETWORK`, `ICGPT_CANISTER`, `ICGPT_IDENTITY` for all commands. `ICGPT_STATE_DIR` is where
  the local network keeps its state, `ICGPT_CONFIG_DIR` where keys, settings and pinned root keys
  are, `ICGPT_CACHE_DIR` where compiled and converted files are. `NO_COLOR` turns colours off.
"""


def page() -> str:
    """The page."""
    commands = list(_commands(cli, "icgpt"))
    parts = [HEAD]
    parts.append("| command | what it does |\n|---|---|")
    for path, command in commands:
        link = path.replace(" ", "-")
        parts.append(f"| [`{path}`](#{link}) | {_first(command)} |")
    parts.append("")
    parts += [_shown(path, command) for path, command in commands]
    return "\n".join(parts)


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if path != "icgpt":
        yield path, command
    if isinstance(command, click.Group):
        with click.Context(command, info_name=path) as ctx:
            for name in command.list_commands(ctx):
                inner = command.get_command(ctx, name)
                if inner is not None:
                    yield from _commands(inner, f"{path} {name}")


def _shown(path: str, command: click.Command) -> str:
    with click.Context(command, info_name=path) as ctx:
        usage = " ".join([path, *command.collect_usage_pieces(ctx)])
        options = [p for p in command.get_params(ctx) if isinstance(p, click.Option)]
    lines = [f"## {path}", "", inspect.cleandoc(command.help or ""), ""]
    lines += ["```text", usage, "```", ""]
    shown = [
        _option(option) for option in options if not option.hidden and "--help" not in option.opts
    ]
    if shown:
        lines += ["| option | what it does |", "|---|---|", *shown, ""]
    examples = getattr(command, "examples", ())
    if examples:
        lines += [f"<!-- run by: {TEST} -->", "", "```bash", *examples, "```", ""]
    return "\n".join(lines)


def _option(option: click.Option) -> str:
    both = ["/".join((*option.opts, *option.secondary_opts))] if option.secondary_opts else None
    names = ", ".join(f"`{name}`" for name in both or option.opts)
    value = "" if option.is_flag or option.count else f" `{_value(option)}`"
    words = (option.help or "").strip()
    notes = []
    if option.show_default and option.default is not None:
        notes.append(f"default `{_default(option)}`")
    if option.multiple:
        notes.append("can be given several times")
    if isinstance(option.envvar, str):
        notes.append(f"`{option.envvar}`")
    if notes:
        words += f" ({', '.join(notes)})"
    return f"| {names}{value} | {words} |".replace("`|", "`\\|")


def _value(option: click.Option) -> str:
    with click.Context(click.Command("x")) as ctx:
        name = option.make_metavar(ctx)
    return name.replace("|", "\\|")


def _default(option: click.Option) -> str:
    if option.secondary_opts:
        return (option.opts if option.default else option.secondary_opts)[0]
    return str(option.default)


def _first(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").split("\n\n")[0].replace("\n", " ")

"""The command line `icgpt`: a module a command, loaded when the command is called.

The answer goes to stdout, everything else to stderr; `--json` makes the answer one JSON document.
Exit codes: 0 done, 1 failed, 2 usage, 3 network unreachable, 4 refused by the canister,
5 verification failed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click

from icgpt import __version__
from icgpt.cli.common import error_text, fitted
from icgpt.cli.help import Group
from icgpt.errors import IcgptError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Module and the line in `icgpt --help`: kept here so that help loads nothing. The function has the
# command's name.
SECTIONS = {
    "Begin": {
        "demo": "Start a network, put a model on it and let it write.",
        "network": "Start and stop the local network.",
        "deploy": "Create a canister and its page, or bring their code up to date.",
        "upload": "Put a model into a canister.",
        "train": "Train a model (needs PyTorch).",
    },
    "Share": {
        "push": "Put a model on the Hugging Face hub.",
        "pull": "Fetch a model of the Hugging Face hub into a folder.",
        "space": "Write a Gradio Space for a model.",
        "truss": "Write a Truss for a model, to deploy with Baseten's tools.",
        "convert": "Write a model in Hugging Face's form, or in eight bits.",
    },
    "Talk": {
        "generate": "Let the model answer a text.",
        "chat": "Talk with the model, turn by turn.",
        "ui": "Open a page to let models write in (needs Gradio).",
        "serve": "Serve a model over HTTP (needs FastAPI).",
        "infer": "Let the model go on from token ids.",
        "tokenize": "Turn a text into token ids.",
        "decode": "Turn token ids into text.",
        "verify": "Check the receipt of an answer.",
    },
    "Measure": {
        "eval": "Say how well the model knows a text.",
        "bench": "Measure how fast the model writes.",
        "cost": "Say what it costs on mainnet.",
    },
    "Look after": {
        "status": "Show network, canister and model.",
        "jobs": "Show or end the answers that are being written.",
        "models": "List models, built in and in canisters.",
        "access": "Say who may use a canister.",
        "logs": "Show what a canister logs.",
    },
    "This program": {
        "config": "Show the settings and where they come from.",
        "completion": "Let the shell complete commands.",
        "env": "Describe this installation, for bug reports.",
    },
}
COMMANDS = {name: line for section in SECTIONS.values() for name, line in section.items()}


_MODULES = {"eval": "evaluate", "config": "configuration"}  # where the name is taken


class LazyGroup(Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"icgpt.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command = getattr(module, _MODULES.get(cmd_name, cmd_name))
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__} has no such command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        width = max(map(len, COMMANDS))
        for title, lines in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, line in lines.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names, without importing what they do."""
        from click.shell_completion import CompletionItem

        return [
            CompletionItem(name, help=line)
            for name, line in COMMANDS.items()
            if name.startswith(incomplete)
        ]


@click.group(
    cls=LazyGroup,
    examples=[
        "icgpt demo                           see it work, from nothing",
        "icgpt network start                  a local Internet Computer",
        "icgpt deploy                         a canister on it",
        "icgpt upload model shakespeare-char  a model in it",
        'icgpt generate "ROMEO:" -n 200       and its words',
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="icgpt %(version)s")
def cli() -> None:
    """GPT models on the Internet Computer."""


def run(arguments: Sequence[str]) -> int:
    """Runs a command line; its exit code. Errors are told here and nowhere else."""
    as_json = "--json" in takewhile(lambda argument: argument != "--", arguments)
    try:
        code = cli.main(
            list(arguments),
            prog_name="icgpt",
            standalone_mode=False,
            auto_envvar_prefix="ICGPT",
        )
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        return _tell(_from_click(error), as_json)
    except IcgptError as error:
        return _tell(error.to_json(), as_json)
    except OSError as error:
        return _tell(_failed("failed", _from_system(error)), as_json)
    except (click.Abort, KeyboardInterrupt):
        return _tell(_failed("interrupted", "interrupted"), as_json)


def _from_click(error: click.ClickException) -> dict[str, Any]:
    hint = None
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"See: {error.ctx.command_path} --help"
    kind = "usage" if error.exit_code == 2 else "failed"
    words = error.format_message()
    for theirs, ours in _WORDS.items():
        words = words.replace(theirs, ours)
    return _failed(kind, words, hint, error.exit_code)


# What click calls its types is no English.
_WORDS = {
    "is not a valid integer range": "is not a whole number",
    "is not a valid integer": "is not a whole number",
    "is not a valid float range": "is not a number",
}


def _from_system(error: OSError) -> str:
    """What the operating system refused; its paths are those of our own files."""
    words = error.strerror or str(error)
    return words if error.filename is None else f"{error.filename}: {words}"


def _failed(kind: str, message: str, hint: str | None = None, exit_code: int = 1) -> dict[str, Any]:
    return {"kind": kind, "message": message, "hint": hint, "exit_code": exit_code}


def _tell(error: dict[str, Any], as_json: bool) -> int:
    text = error_text(error["message"], error.get("hint"))
    # The lines are broken first: what colours a word takes no room.
    told = fitted(f"Error: {text}").removeprefix("Error:")
    click.echo(click.style("Error:", fg="red", bold=True) + told, err=True)
    if as_json:
        try:
            click.echo(json.dumps({"error": error}))
        except BrokenPipeError:
            # Whoever read our output has gone; keep the interpreter from flushing into the void.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(error["exit_code"])


def main() -> None:
    """The entry point of the `icgpt` script."""
    if isinstance(sys.stdout, TextIOWrapper):
        # In a locale that lacks a character, show its number rather than fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))

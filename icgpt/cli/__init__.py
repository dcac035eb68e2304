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
from typing import Any

import click

from icgpt import __version__
from icgpt.cli.common import error_text, fitted
from icgpt.cli.help import Group
from icgpt.errors import IcgptError

# Name, module and function, and the line in `icgpt --help`: kept here so that help loads nothing.
COMMANDS = {
    "demo": ("icgpt.cli.demo", "demo", "Start a network, put a model on it and let it write."),
    "network": ("icgpt.cli.network", "network", "Start and stop the local network."),
    "deploy": ("icgpt.cli.deploy", "deploy", "Create a canister, or bring its code up to date."),
    "upload": ("icgpt.cli.upload", "upload", "Put a model into a canister."),
    "generate": ("icgpt.cli.generate", "generate", "Let the model answer a text."),
    "chat": ("icgpt.cli.chat", "chat", "Talk with the model, turn by turn."),
    "infer": ("icgpt.cli.infer", "infer", "Let the model go on from token ids."),
    "tokenize": ("icgpt.cli.tokenize", "tokenize", "Turn a text into token ids."),
    "decode": ("icgpt.cli.decode", "decode", "Turn token ids into text."),
    "access": ("icgpt.cli.access", "access", "Say who may use a canister."),
    "status": ("icgpt.cli.status", "status", "Show network, canister and model."),
    "train": ("icgpt.cli.train", "train", "Train a small model (needs PyTorch)."),
}


class LazyGroup(Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command."""
        if cmd_name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[cmd_name]
        command = getattr(import_module(module), function)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{function} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    examples=[
        "icgpt network start                 a local Internet Computer",
        "icgpt deploy                        a canister on it",
        "icgpt upload model shakespeare-char a model in it",
        'icgpt generate "ROMEO:" -n 200      and its words',
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
        code = cli.main(list(arguments), prog_name="icgpt", standalone_mode=False)
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
    return _failed(kind, error.format_message(), hint, error.exit_code)


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

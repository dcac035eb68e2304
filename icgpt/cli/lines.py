"""Lines that somebody types, with editing and history, or that come through a pipe.

With a terminal on both sides the lines are read by the system's readline, which keeps a history
beside the other settings, for its owner alone to read. Otherwise they are read as they are, up to
a size, and nothing is printed in between.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click

from icgpt.cli.common import at_terminal

PROMPT: Final = "> "
MAX_LINE_BYTES: Final = 1 << 20
HISTORY_LINES: Final = 1000
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def interactive() -> bool:
    """Whether a person types and reads."""
    return at_terminal(sys.stdin, sys.stdout)


def read_line() -> str | None:
    """The next line, without its end; None when there are no more."""
    if interactive():
        # Readline must know which characters take no room on the line.
        styled = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        begin, end = (f"\001{_BOLD}\002", f"\001{_PLAIN}\002") if styled else ("", "")
        try:
            return input(f"{begin}{PROMPT}{end}")
        except EOFError:
            return None
    if sys.stdin is None:
        return None
    line = sys.stdin.buffer.readline(MAX_LINE_BYTES + 1)
    if len(line) > MAX_LINE_BYTES:
        raise click.UsageError("A line on stdin is larger than 1 MiB.")
    try:
        return line.decode().rstrip("\r\n") if line else None
    except UnicodeDecodeError as error:
        raise click.UsageError("The text on stdin is not UTF-8.") from error


@contextlib.contextmanager
def editing(history: Path, complete: Callable[[str], list[str]]) -> Iterator[None]:
    """Line editing while the context lasts, where the system has it and a person types.

    Args:
        history: the file that earlier lines are kept in.
        complete: what a begun line may become when Tab is pressed.
    """
    try:
        import readline
    except ImportError:
        yield
        return
    if not interactive():
        yield
        return

    def completer(_text: str, state: int) -> str | None:
        found = complete(readline.get_line_buffer())
        return found[state] if state < len(found) else None

    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES)
    readline.set_completer_delims("")
    readline.set_completer(completer)
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
    try:
        yield
    finally:
        readline.set_completer(None)
        with contextlib.suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(history, os.O_WRONLY | os.O_CREAT, 0o600))
            readline.write_history_file(history)

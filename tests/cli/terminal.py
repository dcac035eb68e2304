"""A terminal for tests: a program runs in it as if a person were typing."""

from __future__ import annotations

import codecs
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CTRL_C = "\x03"
SECONDS = 60.0  # never waited for unless something is wrong
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x01\x02]")
_CUT = re.compile(r"(\x1b(\[[0-9;?]*)?|\r)$")


class Terminal:
    """What was shown since the last `until`, without colours, and keys to press."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self._shown = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._cut = ""  # the start of an escape whose end has not been read yet

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def interrupt(self) -> None:
        """Presses Ctrl-C once the program waits for somebody to type.

        CPython's `input` does not hear of a Ctrl-C that comes when the prompt is there and readline
        does not wait for keys yet. No person is as quick as that.
        """
        while self._state() in "RD":
            time.sleep(0.01)
        self.type(CTRL_C)

    def _state(self) -> str:
        """The letter of proc(5): R where it runs, D where it waits for a disk."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def until(self, words: str) -> str:
        """Waits for words on the screen; all that was shown up to them."""
        while words not in self._shown:
            assert self._read(), f"{words!r} never came: {self._shown[-300:]!r}"
        before, self._shown = self._shown.split(words, 1)
        return before + words

    def rest(self) -> str:
        """All that is shown until the program ends."""
        while self._read():
            pass
        return self._shown

    def _read(self) -> bool:
        if not select.select([self._master], [], [], SECONDS)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # how Linux says that the program has closed its side
            return False
        text = self._cut + self._decode(data)
        cut = _CUT.search(text)
        self._cut = text[cut.start() :] if cut else ""
        text = text[: len(text) - len(self._cut)]
        self._shown += _ESCAPES.sub("", text).replace("\r\n", "\n")
        return bool(data)


@contextmanager
def terminal(*arguments: str, **environment: str) -> Iterator[Terminal]:
    """`icgpt` in a terminal of its own, 80 columns wide."""
    master, slave = pty.openpty()
    os.set_inheritable(slave, True)
    variables = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "icgpt", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=variables,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _own_terminal() -> None:
    """Makes stdin the terminal that Ctrl-C of the keyboard goes through."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)

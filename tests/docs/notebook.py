"""Reads a notebook and makes a program of it, so that it can be run without Jupyter.

A line that begins with `!` is a command, with Python's values in its braces, as in IPython; here it
must succeed. What a test adds runs right behind the cells with a tag.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_COMMAND = re.compile(r"^(\s*)!(.*)$", re.M)
_HEAD = """
import subprocess

def _shell(line):
    subprocess.run(["bash", "-c", line], check=True)
"""


def cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return found


def program(path: Path, behind: Mapping[str, str]) -> str:
    """A notebook's code as one program.

    Args:
        path: the notebook.
        behind: code to run behind the cells with these tags.
    """
    parts = [_HEAD]
    tags = set()
    for cell in cells(path):
        if cell["cell_type"] != "code":
            continue
        code = "".join(cell["source"])
        parts.append(_COMMAND.sub(r"\1_shell(f'''\2''')", code))
        for tag in cell["metadata"].get("tags", []):
            tags.add(tag)
            parts.append(behind.get(tag, ""))
    assert set(behind) <= tags, "there is no cell with this tag"
    return "\n".join(parts) + "\n"

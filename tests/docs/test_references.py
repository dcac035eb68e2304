"""docs/reference/ is what the code says now, and names all that is public."""

from __future__ import annotations

import re
import subprocess
import sys

from model_kit import ROOT

import icgpt
from icgpt.interface import METHODS

REFERENCE = ROOT / "docs" / "reference"


def test_pages_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "references"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_all_that_is_public_is_there() -> None:
    python = (REFERENCE / "python.md").read_text()
    for name in set(icgpt.__all__) - {"__version__"}:
        assert f".{name}\n" in python or f".{name}` |" in python, name
    candid = (REFERENCE / "candid.md").read_text()
    for method in METHODS:
        assert f"\n### {method}\n" in candid, method


def test_every_variable_is_there() -> None:
    code = "".join(path.read_text() for path in (ROOT / "icgpt").rglob("*.py"))
    told = (REFERENCE / "cli.md").read_text() + (ROOT / "docs" / "settings.md").read_text()
    names = set(re.findall(r"\bICGPT_[A-Z_]*[A-Z]", code)) - {"ICGPT_COMPLETE"}
    for name in names:
        # A command's options have variables of their own: docs/settings.md says how they are named.
        assert name in told or name.startswith(("ICGPT_GENERATE_", "ICGPT_SERVE_")), name

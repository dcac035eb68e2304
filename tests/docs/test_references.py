"""docs/reference/ is what the code says now, and names all that is public."""

from __future__ import annotations

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

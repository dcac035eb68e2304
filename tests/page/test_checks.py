"""The page's own checks: its unit tests, style and types, and that its bindings are model.did's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from model_kit import ROOT

PAGE = ROOT / "frontend"
BINDINGS = "model.did.ts"


def npm(*arguments: str) -> None:
    """Runs a script of the page; its words are shown when it fails."""
    program = shutil.which("npm")
    if program is None or not (PAGE / "node_modules").is_dir():
        pytest.skip("Node.js or the page's packages are missing: ./scripts/setup")
    done = subprocess.run(
        [program, "run", "--silent", *arguments], cwd=PAGE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_units() -> None:
    npm("test")


def test_bindings_are_those_of_the_interface(tmp_path: Path) -> None:
    npm("bindings", "--", "--out-dir", str(tmp_path))
    made = (tmp_path / BINDINGS).read_text()
    assert made == (PAGE / "src" / "bindings" / BINDINGS).read_text(), "npm run bindings"


@pytest.mark.slow
def test_style_and_types() -> None:
    npm("check")


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (PAGE / "package-lock.json").read_text()

"""`scripts/setup` on machines that lack something: one line says what, the next what to do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from model_kit import ROOT


def setup(
    tmp_path: Path, *options: str, tools: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    """Runs it in an empty project with only these programs on the path."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts" / "setup")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for tool in tools:
        found = shutil.which(tool)
        assert found
        (bin_ / tool).symlink_to(found)
    return subprocess.run(
        [str(tmp_path / "scripts" / "setup"), *options],
        env={"PATH": str(bin_)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_python(tmp_path: Path) -> None:
    done = setup(tmp_path, tools=("bash", "dirname"))
    assert done.returncode == 1
    missing, advice = done.stderr.splitlines()
    assert missing == "setup: Python 3.11 or newer is missing"
    assert "apt install python3" in advice
    assert not (tmp_path / ".venv").exists()


def test_with_an_unknown_option(tmp_path: Path) -> None:
    done = setup(tmp_path, "--trian", tools=("bash", "dirname"))
    assert done.returncode == 1
    assert "--trian" in done.stderr
    assert "[--train]" in done.stderr

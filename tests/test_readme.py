"""The README's two commands do what it says; tests/docs runs its other examples."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from model_kit import ROOT

BIN = Path(sys.executable).parent


def test_the_demo(tmp_path: Path) -> None:
    """Run in a copy of the outline, so that this checkout's own files stay as they are."""
    # The set-up must find nothing to do: it would install this copy into the checkout's .venv.
    have = ROOT / ".venv" / "icgpt-installed"
    want = subprocess.run(
        ["cksum"], stdin=(ROOT / "pyproject.toml").open("rb"), capture_output=True, text=True
    )
    assert have.is_file(), "run ./scripts/setup first"
    assert have.read_text().split(" ", 1)[1] == want.stdout, "run ./scripts/setup first"
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "rust-toolchain.toml", tmp_path)
    names = [".venv", "canister", "icgpt", "dfx.json", "pyproject.toml", "hatch_build.py"]
    for name in (*names, "LICENSE", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = os.environ | {
        "ICGPT_STATE_DIR": str(tmp_path / "state"),
        "ICGPT_CONFIG_DIR": str(tmp_path / "config"),
    }
    for again in (False, True):
        done = subprocess.run(
            [str(tmp_path / "scripts" / "demo")],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.strip("\n")) >= 190
        assert "instructions per token" in done.stderr
        assert "USD" in done.stderr
        assert ("Setting up" in done.stderr) != again
    state = subprocess.run(
        [str(BIN / "icgpt"), "network", "status"], env=environment, check=False, cwd=tmp_path
    )
    assert state.returncode == 3

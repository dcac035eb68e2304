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
    bin_.mkdir(exist_ok=True)
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


def test_without_a_browser_and_a_way_to_install_one(tmp_path: Path) -> None:
    target = tmp_path / "sysroot" / "lib" / "rustlib" / "wasm32-unknown-unknown"
    target.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("")
    program(tmp_path / ".venv" / "bin" / "python", "exit 1")
    installed = tmp_path / ".venv" / "icgpt-installed"
    empty = subprocess.run(["cksum"], input="", capture_output=True, text=True, check=True)
    installed.write_text(f"dev,train,ui,browser {empty.stdout}")
    program(tmp_path / "bin" / "rustc", f"echo {tmp_path / 'sysroot'}")
    done = setup(tmp_path, "--browser", tools=("bash", "dirname", "cksum", "cat"))
    assert done.returncode == 1
    missing, advice = done.stderr.splitlines()
    assert missing == "setup: Chromium is missing"
    assert "leave --browser out" in advice


def program(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{shutil.which('bash')}\n{line}\n")
    path.chmod(0o755)

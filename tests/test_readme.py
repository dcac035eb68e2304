"""The README's commands do what it says: each `icgpt` line is run, and the Python example too."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from instruct import instruct_tokenizer
from model_kit import ROOT, tiny_config, tiny_tensors, write_model

README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as a newcomer has it: dfx.json, the built canister, and a model in ./gpt2."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "dfx.json").write_bytes((ROOT / "dfx.json").read_bytes())
    (folder / "canister").symlink_to(ROOT / "canister")
    config = tiny_config(vocab_size=50260, n_positions=128)
    write_model(folder / "gpt2", config, tiny_tensors(config))
    instruct_tokenizer().save(str(folder / "gpt2" / "tokenizer.json"))
    yield folder
    run(folder, "icgpt network stop", check=False)


def run(folder: Path, line: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = shlex.split(line)
    command[0] = str(BIN / command[0])
    environment = os.environ | {
        "ICGPT_STATE_DIR": str(folder / "state"),
        "ICGPT_CONFIG_DIR": str(folder / "config"),
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, (line, done.stdout, done.stderr)
    return done


def test_every_command(project: Path) -> None:
    scripts, *commands = blocks("bash")
    for line in scripts.splitlines():
        assert os.access(ROOT / line, os.X_OK)
    first, *others = ([line for line in block.splitlines() if line] for block in commands)
    assert first[0] == "icgpt network start"
    assert first[-1] == "icgpt network stop"
    for line in first:
        run(project, line)

    # The other blocks go on from there, with the network running.
    answers = {}
    run(project, "icgpt network start")
    for block in others:
        for line in block:
            answers[line] = run(project, line).stdout
    assert answers['icgpt tokenize "to be"'].strip() == "1462 307"
    for code in blocks("python"):
        (project / "example.py").write_text(code)
        assert run(project, "python example.py").stdout.strip()


def test_the_demo(tmp_path: Path) -> None:
    """Run in a copy of the outline, so that this checkout's own files stay as they are."""
    # The set-up must find nothing to do: it would install this copy into the checkout's .venv.
    have = ROOT / ".venv" / "icgpt-installed"
    want = subprocess.run(
        ["cksum"], stdin=(ROOT / "pyproject.toml").open("rb"), capture_output=True, text=True
    )
    assert have.is_file(), "run ./scripts/setup first"
    assert have.read_text().split(" ", 1)[1] == want.stdout, "run ./scripts/setup first"
    (tmp_path / "scripts").mkdir()
    for file in (*(ROOT / "scripts").iterdir(), ROOT / "rust-toolchain.toml"):
        shutil.copy(file, tmp_path / file.relative_to(ROOT))
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

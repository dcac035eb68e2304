"""`icgpt network` with folders of its own: start, stop, clean, foreground, launcher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from icgpt import cli, network


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli.run(["network", *arguments])
    return code, capsys.readouterr().out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "of its own"


def test_a_chosen_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ("--state-dir", str(folder))
    try:
        code, out = run(capsys, "start", *chosen, "--json")
        first = json.loads(out)
        assert (code, first["running"]) == (0, True)
        assert run(capsys, "status", *chosen, "--json")[0] == 0
        assert run(capsys, "stop", *chosen)[0] == 0
        assert run(capsys, "status", *chosen)[0] == 3
        # Its key stays, unless everything is to be forgotten.
        again = json.loads(run(capsys, "start", *chosen, "--json")[1])
        assert again["root_key"] == first["root_key"]
        clean = json.loads(run(capsys, "start", *chosen, "--clean", "--json")[1])
        assert clean["root_key"] != first["root_key"]
        # With a canister there, somebody must have said so.
        (folder / "canisters" / "7").mkdir(parents=True)
        assert run(capsys, "start", *chosen, "--clean")[0] == 2
        assert run(capsys, "status", *chosen)[0] == 0
        assert (folder / "canisters" / "7").exists()
        (folder / "canisters" / "7").rmdir()
        assert run(capsys, "reset", *chosen, "--yes")[0] == 0
        assert not (folder / "secret").exists()
    finally:
        network.stop(folder)


def test_waiting_for_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = []
    launch = subprocess.Popen

    def watched(command: list[str], *arguments: Any, **options: Any) -> Any:
        commands.append(command)
        return launch(command, *arguments, **options)

    monkeypatch.setattr(network.subprocess, "Popen", watched)
    chosen = ("--state-dir", str(folder), "--json")
    try:
        for flags in ((), ("--sync",)):
            assert run(capsys, "start", *chosen, *flags)[0] == 0
            assert run(capsys, "stop", *chosen)[0] == 0
    finally:
        network.stop(folder)
    # A port that is taken makes it try another one.
    assert list(dict.fromkeys("--sync" in command for command in commands)) == [False, True]


def test_in_the_foreground(folder: Path) -> None:
    command = [sys.executable, "-m", "icgpt", "network", "start", "--foreground"]
    process = subprocess.Popen(
        [*command, "--state-dir", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal of its own, so to speak
    )
    try:
        while network.status(folder) is None:
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "until Ctrl-C" in said
    assert network.status(folder) is None


def test_the_launcher_is_a_program(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ICGPT_STATE_DIR", str(folder))
    code, out = run(capsys, "launcher")
    assert code == 0
    program = Path(out.strip())
    assert program.parent == folder
    done = subprocess.run([str(program), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--gateway-port" in done.stdout
    assert json.loads(run(capsys, "launcher", "--json")[1]) == {"launcher": str(program)}


def test_the_launcher_tells_where_it_is(folder: Path) -> None:
    """What icp waits for: one line of JSON, and an end at SIGINT."""
    command = [sys.executable, "-m", "icgpt.replica.launcher", "--interface-version", "1.1.0"]
    command += ["--state-dir", str(folder / "state"), "--status-dir", str(folder / "status")]
    command += ["--bind", "127.0.0.1", "--domain=localhost", "--artificial-delay-ms=5"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        status = folder / "status" / "status.json"
        while not status.exists():
            assert process.poll() is None
            time.sleep(0.02)
        text = status.read_text()
        assert text.endswith("}\n")
        document = json.loads(text)
        assert document["v"] == "1"
        info = network.status(folder / "state")
        assert info is not None
        assert document["gateway_port"] == info.port
        assert document["root_key"] == info.root_key.hex()
        assert document["supported_features"] == ["custom-domains"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()

"""Where the tests of the command line run: alone, or in a project on the local network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_kit import WASM, Cli

from icgpt import connect
from icgpt.network import NetworkInfo


def forget_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No options from the environment of whoever runs the tests; the cache stays where it is."""
    for name in list(os.environ):
        if name.startswith("ICGPT_") and name != "ICGPT_CACHE_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, no project, no settings."""
    forget_settings(monkeypatch)
    monkeypatch.setenv("ICGPT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("ICGPT_STATE_DIR", str(tmp_path / "state"))
    # Whatever runs on the usual port of this machine is none of the test's business.
    monkeypatch.setattr(connect, "LOCAL_URL", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def icgpt(
    local: NetworkInfo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    """The command line in a fresh project on the local network."""
    forget_settings(monkeypatch)
    monkeypatch.setenv("ICGPT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("ICGPT_STATE_DIR", str(local.state_dir))
    project = tmp_path / "project"
    project.mkdir()
    (project / "dfx.json").write_text("{}")
    monkeypatch.chdir(project)
    return Cli(project, capsys)


@pytest.fixture
def deployed(icgpt: Cli) -> Cli:
    """With a canister that has no model."""
    icgpt("deploy", "--wasm", str(WASM))
    return icgpt

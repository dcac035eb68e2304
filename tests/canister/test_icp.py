"""The `icp` command line, as its users have it, against our network and canister.

Runs where it is installed: by `scripts/setup --clients`, or on the path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from model_kit import ROOT

from icgpt.client import ModelCanister
from icgpt.network import NetworkInfo
from icgpt.principal import to_text


def find_icp() -> str | None:
    own = sorted((ROOT / ".clients" / "node_modules" / "@icp-sdk").glob("icp-cli-*/bin/icp"))
    return str(own[0]) if own else shutil.which("icp")


ICP = find_icp()
pytestmark = pytest.mark.skipif(ICP is None, reason="icp is not installed")


@pytest.fixture
def project(local: NetworkInfo, shakespeare: ModelCanister, tmp_path: Path) -> Path:
    """A project whose local network is ours, with the id where `icgpt deploy` writes it."""
    text = (ROOT / "icp.yaml").read_text()
    assert "http://127.0.0.1:4943" in text
    (tmp_path / "icp.yaml").write_text(text.replace("http://127.0.0.1:4943", local.url))
    mapping = tmp_path / ".icp" / "data" / "mappings" / "local.ids.json"
    mapping.parent.mkdir(parents=True)
    mapping.write_text(f'{{"model": "{to_text(shakespeare.id)}"}}')
    return tmp_path


def call(project: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(ICP), "canister", "call", "-e", "local", "model", *arguments],
        cwd=project,
        env=os.environ | {"HOME": str(project), "DO_NOT_TRACK": "1", "RUST_BACKTRACE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_seeds_calls(project: Path, shakespeare: ModelCanister) -> None:
    ids = shakespeare.infer([1, 2], 1, 0)
    answer = call(project, "inference", "(vec {1; 2}, 1:nat8, 0.0:float64)")
    assert f"vec {{ {ids[0]} : nat32 }}" in answer
    assert "Ok" in call(project, "generate", '("what is it?", 10:nat8, 0.2:float64)')
    assert "Err" in call(project, "generate", '("what is it?", 101:nat8, 0.2:float64)')


def test_a_query(project: Path) -> None:
    # The interface comes from the canister's own metadata.
    assert "n_embd = 192" in call(project, "--query", "model_info", "()")

"""`icgpt demo` where something is there already; from nothing it is run by tests/test_wheel.py."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from cli_kit import WASM, Cli, characters

from icgpt import built as places
from icgpt import network
from icgpt.network import NetworkInfo


@pytest.fixture
def built(icgpt: Cli) -> Cli:
    """In a project that has built the canister."""
    (icgpt.folder / "canister").mkdir()
    (icgpt.folder / "canister" / "build").symlink_to(WASM.parent)
    return icgpt


def test_on_a_network_that_runs(built: Cli, local: NetworkInfo) -> None:
    text = built("demo", "-n", "20")
    assert text.startswith("ROMEO:")
    assert len(text) == len("ROMEO:") + 20 + 1
    assert "ready in" in built.err
    assert "icgpt network start" not in built.err
    assert "In a browser: http://" in built.err
    again = built.json("demo", "-n", "20")
    assert "there already" in built.err
    assert "ROMEO:" + again["text"] + "\n" == text
    assert again["running"]
    assert network.status(local.state_dir) is not None
    assert again["page"] in built.err
    named = {"Host": urlsplit(again["page"]).netloc}
    told = requests.get(f"{local.url}/config.json", headers=named, timeout=60)
    assert told.json()["model_canister"] == again["canister_id"]
    assert again["canister_id"] == built.json("status")["canister_id"]


def test_another_model_is_left_alone(built: Cli, tmp_path: Path) -> None:
    built("deploy")
    built("upload", "model", str(characters(tmp_path / "chars")))
    before = built.json("status")["model"]
    built("demo", code=1)
    assert "icgpt upload model shakespeare-char" in built.err
    assert built.json("status")["model"] == before


def test_without_the_canister_nothing_is_started(
    icgpt: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICGPT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(places, "__file__", str(tmp_path / "built.py"))
    icgpt("demo", code=1)
    assert "./scripts/build-canister" in icgpt.err
    assert not (tmp_path / "state").exists()

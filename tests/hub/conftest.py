"""A hub on loopback, a model to send, and nothing of the user's own hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import TOKEN, HubServer
from model_kit import ROOT

BUILT_IN = ROOT / "icgpt" / "models" / "shakespeare-char"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty hub. Large files go by git-lfs: xet's own servers are nothing to stand in for."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("ICGPT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    with HubServer({}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """A folder as `icgpt train` leaves it, with things in it that are nobody's business."""
    folder = tmp_path / "story"
    shutil.copytree(BUILT_IN, folder)
    for name in (".env", "notes.txt", "state.pt", "figure/loss.png", "log/log.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    (folder / "LICENSE").symlink_to(folder / ".env")
    return folder

"""A Space: what is written, that it runs by itself, and that it reaches the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from hub_server import HubServer

from icgpt.checkpoint import open_checkpoint
from icgpt.errors import CheckpointError
from icgpt.hub.carried import requirements
from icgpt.hub.errors import FolderError
from icgpt.hub.files import all_of, choose
from icgpt.hub.pushing import Target, push
from icgpt.hub.space import write_space

SECONDS = 60


def front_matter(folder: Path) -> dict[str, Any]:
    _, head, _ = (folder / "README.md").read_text().split("---\n", 2)
    value: dict[str, Any] = yaml.safe_load(head)
    return value


def test_a_space_with_its_model(tmp_path: Path) -> None:
    folder = tmp_path / "space"
    write_space(folder, 'A "story"', open_checkpoint("shakespeare-char"))
    told = front_matter(folder)
    assert (told["title"], told["sdk"], told["app_file"]) == ('A "story"', "gradio", "app.py")
    assert "models" not in told
    assert {path.name for path in folder.iterdir()} == {
        *("app.py", "requirements.txt", "README.md", "icgpt", "model")
    }
    compile((folder / "app.py").read_text(), "app.py", "exec")
    assert (folder / "icgpt" / "_canister" / "engine.wasm.gz").is_file()
    assert not [path for path in folder.rglob("*") if path.name in ("__pycache__", "models")]
    names = {line.split(">=")[0].split("==")[0] for line in requirements(("hub", "ui"))}
    assert {"gradio", "huggingface-hub", "wasmtime", "tokenizers"} <= names
    assert not names & {"torch", "pytest", "playwright"}
    with pytest.raises(FolderError, match="is there already"):
        write_space(folder, "again", "me/story")


def test_what_can_not_be_shown(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        write_space(tmp_path / "space", "tiny", open_checkpoint(str(tiny)))
    assert not (tmp_path / "space").exists()


def test_a_space_of_a_model_on_the_hub_runs(hub: HubServer, story: Path, tmp_path: Path) -> None:
    """Its app.py, alone in a process that knows no other icgpt than the one in the folder."""
    pytest.importorskip("gradio", reason="Gradio is missing: ./scripts/setup --browser")
    push(choose(open_checkpoint(str(story)), str(story)), Target("me/story"), "Add it")
    folder = tmp_path / "space"
    write_space(folder, "Story", "me/story", "main")
    assert front_matter(folder)["models"] == ["me/story"]
    done = push(all_of(folder), Target("me/page", "space", private=True), "Show it")
    assert done.url == f"{hub.url}/spaces/me/page"
    sent = hub.folder("spaces/me/page")
    assert (sent / "app.py").read_bytes() == (folder / "app.py").read_bytes()
    environment = {**os.environ, "PYTHONPATH": "", "GRADIO_SERVER_PORT": "0"}
    del environment["ICGPT_CACHE_DIR"]  # where the engine is compiled already
    with subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=sent,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as app:
        try:
            assert app.stdout is not None
            address = app.stdout.readline().strip()
            page = requests.get(address, timeout=SECONDS)
            assert "Story" in page.text
            assert "me/story" in page.text
            assert "context 256" in page.text
        finally:
            app.terminate()
    assert "model.safetensors" in hub.fetched

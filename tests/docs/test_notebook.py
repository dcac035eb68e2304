"""The notebook is run from its first cell to its last, with a tiny model and a hub on loopback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_project import DocProject
from model_kit import ROOT
from notebook import cells, program

NOTEBOOK = ROOT / "docs" / "train-and-publish.ipynb"

# What a test adds behind the cells with these tags.
BEHIND = {
    "parameters": """
TEXT, STEPS, REPOSITORY = "story.txt", 30, "me/story"
SIZES = "--n-layer 1 --n-head 2 --n-embd 16 --block-size 16 --batch-size 4"
FOLDER = "tale"
""",
    "losses": "assert Image.open('tale/figure/loss.png').width > 100",
    "text": "assert done.tokens == 300",
    "canister": """
again = subprocess.run(
    ["icgpt", "generate", "ROMEO:", "-n", "300", "-t", "0.7", "--seed", "7"],
    capture_output=True, text=True, check=True,
)
assert again.stdout == done.text + "\\n"
""",
    "page": """
import requests
assert "A story" in requests.get(address, timeout=60).text
""",
}


def test_it_carries_nothing_of_a_machine() -> None:
    assert not re.search(r"/(home|Users|root|tmp|work)/", NOTEBOOK.read_text())
    for cell in cells(NOTEBOOK):
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_every_cell(tmp_path: Path) -> None:
    for name in ("torch", "matplotlib", "gradio"):
        pytest.importorskip(name, reason=f"{name} is missing: ./scripts/setup --train --browser")
    project = DocProject(tmp_path)
    try:
        del project.environment["ICGPT_CACHE_DIR"]  # the user's, where the code is compiled already
        project.need("hub")
        speech = "ROMEO:\nBut soft, what light through yonder window breaks?\n"
        project.put("story.txt", 200 * speech)
        done = project.python(program(NOTEBOOK, BEHIND))
        assert done.returncode == 0, done.stdout
        assert "tale: validation loss" in done.stdout
        assert f"{project.environment['HF_ENDPOINT']}/me/story\n" in done.stdout
        assert (project.folder / "tale-page" / "app.py").is_file()
    finally:
        project.close()

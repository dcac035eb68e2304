"""A Truss: what is written, that Baseten's own library loads it, and that its model predicts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from model_kit import ROOT

from icgpt.checkpoint import open_checkpoint
from icgpt.errors import CheckpointError
from icgpt.hub.truss import write_truss

SECONDS = 60

LIBRARY = ROOT / ".clients" / "tools"
LOADING = """
import json, sys, truss
spec = truss.load(sys.argv[1]).spec
print(json.dumps({
    "name": spec.config.model_name,
    "class": str(spec.model_class_filepath),
    "packages": [path.name for path in spec.bundled_packages_dir.iterdir()],
    "at_once": spec.config.runtime.predict_concurrency,
}))
"""

# As a Truss's server does it: packages behind the path, the class by its file, load in a thread,
# predict in a loop.
SERVER = """
import asyncio, importlib.util, json, sys, threading
sys.path.append("packages")
place = importlib.util.spec_from_file_location("model.model", "model/model.py")
module = importlib.util.module_from_spec(place)
place.loader.exec_module(module)
model = module.Model(data_dir="data", config={}, secrets={})
loading = threading.Thread(target=model.load)
loading.start()
loading.join()

async def ask():
    asked = [json.loads(line) for line in sys.stdin]
    return await asyncio.gather(*map(model.predict, asked))

import icgpt
print(icgpt.__file__)
for answer in asyncio.run(ask()):
    print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def truss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truss") / "story"
    write_truss(folder, "Story", open_checkpoint("shakespeare-char"), "int8")
    return folder


def test_what_is_written(truss: Path, tmp_path: Path) -> None:
    assert {path.name for path in truss.iterdir()} == {"config.yaml", "model", "packages", "data"}
    config = yaml.safe_load((truss / "config.yaml").read_text())
    assert config["model_name"] == "Story"
    names = {line.split(">=")[0].split("==")[0] for line in config["requirements"]}
    assert {"fastapi", "huggingface-hub", "wasmtime", "tokenizers"} <= names
    assert not names & {"torch", "pytest", "gradio", "icgpt"}
    write_truss(tmp_path / "remote", "Story", "me/story", "int16", "v1")
    text = (tmp_path / "remote" / "model" / "model.py").read_text()
    for line in ("hub_id = 'me/story'", "revision = 'v1'", "precision = 'int16'"):
        assert line in text
    assert not (tmp_path / "remote" / "data").exists()


def test_what_can_not_go_into_one(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        write_truss(tmp_path / "truss", "tiny", open_checkpoint(str(tiny)), "int8")
    assert not (tmp_path / "truss").exists()


def test_basetens_library_loads_it(truss: Path) -> None:
    if not LIBRARY.is_dir():
        pytest.skip("truss is missing: ./scripts/setup --clients")
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOADING, str(truss)],
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "name": "Story",
        "class": str(truss / "model" / "model.py"),
        "packages": ["icgpt"],
        "at_once": 8,
    }


def test_it_predicts(truss: Path, tmp_path: Path) -> None:
    """In a process that knows no other icgpt than the one in the folder."""
    pytest.importorskip("fastapi", reason="FastAPI is missing: pip install 'icgpt[serve]'")
    asked = [
        [{"prompt": "If I was a billionaire, I would", "max_length": 50}],
        [{"prompt": "ROMEO:", "max_length": 20}, {"prompt": "JULIET:", "max_length": 20}],
        {"prompt": "ROMEO:"},
        [{"prompt": "ROMEO:", "max_length": 3}],
    ]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SERVER],
        cwd=truss,
        env=environment,
        input="\n".join(map(json.dumps, asked)),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    where, *lines = done.stdout.splitlines()
    one, two, no_list, short = map(json.loads, lines)
    assert where.endswith("icgpt/__init__.py")
    assert (one["status"], one["message"]) == ("success", None)
    assert one["data"].startswith("If I was a billionaire, I would")
    assert [text[:6] for text in two["data"]] == ["ROMEO:", "JULIET"]
    for answer in (no_list, short):
        assert (answer["status"], answer["data"]) == ("failed", None)
        assert answer["message"]

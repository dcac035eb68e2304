"""Training in processes of its own: several that train one model, and one that is killed."""

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

pytest.importorskip("torch")

TEXT = "".join(f"{n} sheep and {n + 1} sheep are {2 * n + 1} sheep.\n" for n in range(150))
SMALL = ["--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--block-size", "16"]
SMALL += ["--batch-size", "4", "--eval-interval", "2", "--threads", "1"]
SMALL += ["--data", "story.txt", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _text(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(TEXT)


def _started(folder: Path, *command: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(folder: Path, *command: str) -> str:
    process = _started(folder, *command)
    words, _ = process.communicate(timeout=300)
    assert process.returncode == 0, words
    return words


def _losses(folder: Path) -> list[tuple[int, float, float]]:
    lines = (folder / "log" / "log.jsonl").read_text().splitlines()
    entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [(one["step"], one["train"], one["validation"]) for one in entries]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    train = ["icgpt", "train", "shakespeare-char", *SMALL, "--max-iters", "6", "--dropout", "0"]
    train += ["--grad-accum", "2", "--split", "80/10/10"]
    alone = _run(tmp_path, *train, "--out", "one")
    together = _run(
        tmp_path,
        *("torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", *train, "--out", "two"),
    )
    for before, after in zip(_losses(tmp_path / "one"), _losses(tmp_path / "two"), strict=True):
        assert after == pytest.approx(before, abs=1e-5)
    # One process speaks, and says the same.
    found = [line.partition(": ")[2] for line in together.splitlines() if "testing loss" in line]
    assert found == [line.partition(": ")[2] for line in alone.splitlines() if "testing" in line]


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_unbroken(tmp_path: Path) -> None:
    train = ["icgpt", "train", "shakespeare-char", *SMALL, "--max-iters", "400"]
    _run(tmp_path, *train, "--out", "whole")
    process = _started(tmp_path, *train, "--out", "broken")
    log = tmp_path / "broken" / "log" / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("\n") >= 20):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 20 <= log.read_text().count("\n") < 200, "the run was over before it was killed"
    words = _run(tmp_path, *train, "--out", "broken", "--resume")
    assert "going on after step" in words
    for before, after in zip(
        _losses(tmp_path / "whole"), _losses(tmp_path / "broken"), strict=True
    ):
        assert after == pytest.approx(before, abs=1e-4)
    ends = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert ends[0] == ends[1]
    assert not list((tmp_path / "broken").glob("*state*"))
    assert not list((tmp_path / "broken").glob(".*"))

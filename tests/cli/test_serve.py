"""`icgpt serve` as a program: settings, ports, its end, and what it says when it can't begin."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from cli_kit import Cli
from model_kit import ROOT

from icgpt.cli import run

SECONDS = 60
SHAKESPEARE = ROOT / "icgpt" / "models" / "shakespeare-char"


@contextmanager
def serving(
    *arguments: str, end: int = signal.SIGINT, **variables: str
) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    """The command, and what it prints once it answers. It must end well, and by itself."""
    pytest.importorskip("fastapi", reason="FastAPI is missing: pip install 'icgpt[serve]'")
    started = subprocess.Popen(
        [sys.executable, "-m", "icgpt", "serve", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
    )
    assert started.stdout is not None
    try:
        line = started.stdout.readline()
        assert "urls" in line, started.communicate()
        yield json.loads(line), started
        started.send_signal(end)
        rest, told = started.communicate(timeout=SECONDS)
    finally:
        started.kill()
        started.wait()
    assert (started.returncode, rest) == (0, "")
    assert "Traceback" not in told


@pytest.mark.usefixtures("alone")
def test_one_application_on_two_ports() -> None:
    with serving("--port", "0", "--port", "0") as (said, _):
        assert (said["model"], said["backend"]) == ("shakespeare-char", "local")
        first, second = said["urls"]
        assert first != second
        for url in (first, second):
            assert requests.get(f"{url}/health", timeout=SECONDS).json()["status"] == "ok"


@pytest.mark.usefixtures("alone")
def test_the_environment_of_another_service(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.toml").write_text('[serve]\nport = [0]\nmax-tokens = 3\nname = "bard"\n')
    shutil.copytree(SHAKESPEARE, tmp_path / "mine")
    variables = {"CKPT_PATH": "./mine", "TORCH_THREADS": "2", "MAX_CTX": "9", "API_KEY": "secret"}
    with serving(**variables) as (said, started):
        (url,) = said["urls"]
        assert said["model"] == "bard"
        body = {"prompt": "ROMEO:", "max_tokens": 9}
        refused = requests.post(f"{url}/v1/completions", json=body, timeout=SECONDS)
        assert refused.status_code == 401
        key = {"x-api-key": "secret"}
        done = requests.post(f"{url}/v1/completions", json=body, headers=key, timeout=SECONDS)
        assert done.json()["usage"]["completion_tokens"] == 3
        body = {"prompt": "ROMEO: to be or"}
        refused = requests.post(f"{url}/v1/completions", json=body, headers=key, timeout=SECONDS)
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        engines = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        assert len(engines) == 2


@pytest.mark.usefixtures("alone")
def test_answers_end_before_the_service_does() -> None:
    found: list[bytes] = []
    with serving("--port", "0", end=signal.SIGTERM) as (said, _):
        (url,) = said["urls"]
        body = {"prompt": "A", "max_tokens": 400, "stream": True}
        stream = requests.post(f"{url}/v1/completions", json=body, stream=True, timeout=SECONDS)
        lines = stream.iter_lines()
        assert next(lines)
        reading = threading.Thread(target=lambda: found.extend(lines))
        reading.start()
    reading.join(SECONDS)
    assert [line for line in found if line][-1] == b"data: [DONE]"


def test_a_model_in_a_canister(deployed: Cli) -> None:
    deployed("upload", "model", "shakespeare-char")
    wanted = deployed.json("generate", "ROMEO:", "-n", "20", "--seed", "5", "-t", "1")["text"]
    with serving("--canister", "model", "--port", "0") as (said, _):
        assert (said["model"], said["backend"]) == ("model", "canister")
        (url,) = said["urls"]
        body = {"prompt": "ROMEO:", "max_tokens": 20, "seed": 5}
        done = requests.post(f"{url}/v1/completions", json=body, timeout=SECONDS).json()
        assert done["choices"][0]["text"] == wanted
        assert done["usage"]["prompt_tokens"] == 6
        text = ""
        with requests.post(
            f"{url}/v1/completions", json={**body, "stream": True}, stream=True, timeout=SECONDS
        ) as stream:
            for line in stream.iter_lines():
                if line.startswith(b"data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
        assert text == wanted
        body = {"prompt": "RO", "max_tokens": 0, "echo": True, "logprobs": 0}
        scored = requests.post(f"{url}/v1/completions", json=body, timeout=SECONDS).json()
        assert len(scored["choices"][0]["logprobs"]["tokens"]) == 2


@pytest.mark.usefixtures("alone")
def test_what_cannot_be_served(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is missing: pip install 'icgpt[serve]'")
    assert run(["serve", "--local", "no-such-model"]) == 1
    assert "no-such-model doesn't exist" in capsys.readouterr().err
    assert run(["serve", "--canister", "model"]) == 3
    assert "icgpt network start" in capsys.readouterr().err
    assert run(["serve", "--local", "a", "--canister", "model"]) == 2
    assert "one model" in capsys.readouterr().err
    assert run(["serve", "--host", "192.0.2.1"]) == 1
    assert "--port" in capsys.readouterr().err
    monkeypatch.setattr("icgpt.cli.serve.find_spec", lambda name: None)
    assert run(["serve"]) == 1
    assert 'pip install "icgpt[serve]"' in capsys.readouterr().err

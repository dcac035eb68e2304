"""The callers of earlier services, as their documentation has them: curl as written, other host.

What a call says of host, port and key is that of the service under test; all else stands as it is.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from serve_kit import Served, served

from icgpt.checkpoint import open_checkpoint
from icgpt.engine import Engine
from icgpt.serve.local import LocalBackend
from icgpt.serve.settings import Settings
from icgpt.texts import load_tokenizer

SECONDS = 60

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served(LocalBackend(open_checkpoint("shakespeare-char"))) as running:
        yield running


@pytest.fixture(scope="module")
def locked() -> Iterator[Served]:
    """A service with a key, and small caps."""
    settings = Settings(api_keys=("your_secret_key",), max_body_bytes=4096)
    with served(LocalBackend(open_checkpoint("shakespeare-char")), settings) as running:
        yield running


def called(script: str) -> Any:
    """What a documented call prints, as JSON."""
    return json.loads(run(script).stdout)


def run(script: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done


def test_complete_a_sentence(service: Served) -> None:
    answer = called(f"""curl -X POST "{service.url}/complete-sentence" \\
     -H "Content-Type: application/json" \\
     -d '{{"text": "The quick brown fox"}}'
""")
    assert list(answer) == ["completed_sentence"]
    text = answer["completed_sentence"]
    assert text.startswith("The quick brown fox")
    assert len(text) == len("The quick brown fox") + 50  # a character a token


def test_health(service: Served) -> None:
    answer = called(f"curl {service.url}/health")
    assert answer == {"status": "ok", "model": "shakespeare-char", "backend": "local"}


def test_generate(service: Served) -> None:
    answer = called(f"""curl -X POST "{service.url}/generate" \\
  -H "Content-Type: application/json" \\
  -d '{{
    "prompt": "The quick brown fox",
    "task_name": "got",
    "max_new_tokens": 12,
    "temperature": 0.8,
    "top_p": 0.9,
    "top_k": 50
  }}'
""")
    assert list(answer) == ["task", "text", "usage"]
    assert answer["task"] == "got"
    assert len(answer["text"].removeprefix("The quick brown fox")) == 12
    assert answer["usage"]["completion_tokens"] == 12


def test_generate_with_a_key(locked: Served) -> None:
    answer = called(f"""export API_KEY="your_secret_key"

curl -H "x-api-key: your_secret_key" \\
     -H "Content-Type: application/json" \\
     -d '{{"prompt":"Hello my name is","task_name":"spam","max_new_tokens":8}}' \\
     {locked.url}/generate
""")
    assert answer["task"] == "spam"
    assert answer["label"] in ("spam", "not spam")
    assert 0.5 <= answer["confidence"] <= 1
    assert answer["text"] == answer["label"]


def test_predict(locked: Served) -> None:
    answer = called(f""" curl -X POST {locked.url}/models/MODEL_VERSION_ID/predict \\
  -H 'Authorization: Api-Key your_secret_key' \\
  -d '[
    {{
        "prompt": "If I was a billionaire, I would",
        "max_length": 50
    }}
]'
""")
    assert list(answer) == ["status", "data", "message"]
    assert (answer["status"], answer["message"]) == ("success", None)
    assert answer["data"].startswith("If I was a billionaire, I would")
    assert len(answer["data"]) == 50


# --- The same routes, asked for more


def posted(service: Served, path: str, value: Any, key: str | None = None) -> requests.Response:
    headers = {} if key is None else {"Authorization": f"Api-Key {key}"}
    data = value if isinstance(value, bytes) else json.dumps(value)
    return requests.post(f"{service.url}/{path}", data=data, headers=headers, timeout=SECONDS)


def test_a_truss_is_asked_by_its_models_name(service: Served) -> None:
    asked = [{"prompt": "ROMEO:", "max_length": 20}, {"prompt": "JULIET:", "max_length": 20}]
    answer = posted(service, "v1/models/gpt-j:predict", asked).json()
    assert answer == posted(service, "models/x/predict", asked).json()
    assert [len(text) for text in answer["data"]] == [20, 20]
    assert answer["data"][0].startswith("ROMEO:")
    for path in ("", "v1/models/gpt-j/loaded"):
        assert requests.get(f"{service.url}/{path}", timeout=SECONDS).status_code == 200


def test_every_parameter(service: Served) -> None:
    asked = {
        "prompt": "ROMEO:",
        "max_length": 1000,
        "min_length": 1000,
        "do_sample": True,
        "early_stopping": False,
        "num_beams": 1,
        "temperature": 0.7,
        "top_k": 0,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "length_penalty": 1.0,
        "encoder_no_repeat_ngram_size": 3,
        "num_return_sequences": 2,
        "max_time": None,
        "num_beam_groups": 1,
        "diversity_penalty": 0.0,
        "remove_invalid_values": False,
    }
    answer = posted(service, "models/m/predict", [asked]).json()
    assert [len(text) for text in answer["data"]] == [512, 512]


def test_greedy_unless_sampling_is_asked_for(service: Served) -> None:
    plain = {"prompt": "ROMEO:", "max_length": 30}
    warm = {**plain, "temperature": 3.0, "top_k": 1}
    answer = posted(service, "models/m/predict", [plain, warm]).json()
    assert answer["data"][0] == answer["data"][1]


def test_beams_are_those_of_the_engine(service: Served) -> None:
    """Groups of beams and several texts of one search, the best first."""
    search = {
        "num_beams": 4,
        "num_beam_groups": 2,
        "diversity_penalty": 0.5,
        "length_penalty": 2.0,
        "num_return_sequences": 3,
    }
    asked = {"prompt": "ROMEO:", "max_length": 20, "early_stopping": True, **search}
    found = posted(service, "models/m/predict", [asked]).json()["data"]
    checkpoint = open_checkpoint("shakespeare-char")
    tokenizer = load_tokenizer(checkpoint)
    texts = [""] * 3
    with Engine.load(checkpoint, "int8") as engine:
        options = {**search, "early_stopping": True, "max_new_tokens": 14, "temperature": 0}
        engine.submit(tokenizer.encode("ROMEO:").ids, **options)
        while engine.running:
            for event in engine.step():
                texts[event.index] += tokenizer.decode(event.token_ids)
    assert found == [f"ROMEO:{text}" for text in texts]
    assert len(set(found)) == 3


def test_prompts_that_are_too_long_are_cut(service: Served) -> None:
    long = "All the world. " * 60
    answer = posted(service, "generate", {"prompt": long, "max_new_tokens": 6}).json()
    assert answer["task"] == "generate"
    assert answer["text"].startswith(long)
    assert answer["usage"] == {
        "prompt_tokens": 250,  # of a context of 256
        "completion_tokens": 6,
        "total_tokens": 256,
    }
    judged = posted(service, "generate", {"prompt": long, "task_name": "spam"}).json()
    assert judged["usage"]["prompt_tokens"] <= 256
    sentence = posted(service, "complete-sentence", {"text": long}).json()
    assert len(sentence["completed_sentence"]) == len(long) + 50
    refused = posted(service, "models/m/predict", [{"prompt": long}])
    assert refused.status_code == 422
    assert "the context is 256" in refused.json()["message"]


# --- What is wrong is told in each service's own shape


@pytest.mark.parametrize("header", ["x-api-key: no", "x: y", "Authorization: Api-Key no"])
def test_wrong_keys(header: str, locked: Served) -> None:
    for path in ("generate", "complete-sentence", "models/m/predict", "v1/models/m:predict"):
        url = f"{locked.url}/{path}"
        done = run(f"""curl -s -w '\\n%{{http_code}}' -H '{header}' -d '[]' {url}""")
        text, code = done.stdout.rsplit("\n", 1)
        assert code == "401"
        answer = json.loads(text)
        if "predict" in path:
            assert (answer["status"], answer["data"]) == ("failed", None)
            assert "key" in answer["message"]
        else:
            assert "key" in answer["detail"]


def test_bodies_that_are_too_large(locked: Served) -> None:
    answer = posted(locked, "models/m/predict", b"[" * 5000, "your_secret_key")
    assert answer.status_code == 413
    assert answer.json()["status"] == "failed"
    assert posted(locked, "generate", b"[" * 5000, "your_secret_key").status_code == 413


PREDICTIONS: dict[str, Any] = {
    "no JSON": b"prompt=x",
    "half of it": b'[{"prompt": "a"',
    "nested too deep": b"[" * 50_000,
    "not UTF-8": b'[{"prompt": "\xff"}]',
    "a lone surrogate": b'[{"prompt": "\\ud800"}]',
    "NaN": b'[{"prompt": "a", "temperature": NaN}]',
    "infinity": b'[{"prompt": "a", "length_penalty": 1e999}]',
    "no list": {"prompt": "a"},
    "nothing": [],
    "no prompt": [{"max_length": 3}],
    "an empty prompt": [{"prompt": ""}],
    "a number as the prompt": [{"prompt": 3}],
    "a text as a number": [{"prompt": "a", "max_length": "30"}],
    "true as a number": [{"prompt": "a", "top_k": True}],
    "a fraction": [{"prompt": "a", "max_length": 3.5}],
    "a number as true": [{"prompt": "a", "do_sample": 1}],
    "less than nothing": [{"prompt": "a", "min_length": -1}],
    "a huge number": [{"prompt": "a", "top_k": 10**30}],
    "top_p above 1": [{"prompt": "a", "top_p": 1.5}],
    "an unknown name": [{"prompt": "a", "max_lenght": 20}],
    "a prompt as long as the text": [{"prompt": "ROMEO:", "max_length": 6}],
    "several texts of one": [{"prompt": "a", "num_return_sequences": 2}],
    "too many prompts": [{"prompt": "a"}] * 65,
    "unknown characters": [{"prompt": "\u65e5"}],
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predictions_that_are_refused(name: str, service: Served) -> None:
    answer = posted(service, "models/m/predict", PREDICTIONS[name])
    assert answer.status_code == 422
    told = answer.json()
    assert (told["status"], told["data"]) == ("failed", None)
    assert told["message"]


GENERATIONS: dict[str, Any] = {
    "no JSON": b"{",
    "a list": [],
    "no prompt": {"max_new_tokens": 3},
    "an empty prompt": {"prompt": "", "task_name": "spam"},
    "NaN": b'{"prompt": "a", "top_p": NaN}',
    "no tokens": {"prompt": "a", "max_new_tokens": 0},
    "a text as a number": {"prompt": "a", "temperature": "1"},
    "a number as the task": {"prompt": "a", "task_name": 1},
    "unknown characters": {"prompt": "\u65e5", "task_name": "spam"},
}


@pytest.mark.parametrize("name", GENERATIONS)
def test_generations_that_are_refused(name: str, service: Served) -> None:
    answer = posted(service, "generate", GENERATIONS[name])
    assert answer.status_code == 422
    assert answer.json()["detail"]


@pytest.mark.parametrize("text", [{}, {"text": ""}, {"text": 3}, {"text": None}, "text"])
def test_sentences_that_are_refused(text: Any, service: Served) -> None:
    assert posted(service, "complete-sentence", text).status_code == 422

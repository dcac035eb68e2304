"""`/openapi.json` held against real answers: they have what it tells of, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from serve_kit import SECONDS, Served

jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="missing: ./scripts/setup")

KEY = {"x-api-key": "secret"}
MODEL = "shakespeare-char"
COMPLETION: dict[str, Any] = {"prompt": "ROMEO:", "max_tokens": 3, "seed": 1}
SPEECH = {"role": "user", "content": "Hi"}
CHAT: dict[str, Any] = {"messages": [SPEECH], "max_tokens": 3, "seed": 1}
SEVERAL = {"n": 2, "stream_options": {"include_usage": True}}
PLACES: dict[str, Any] = {"logprobs": True, "top_logprobs": 2}


@pytest.fixture(scope="module")
def document(shakespeare_service: Served) -> Any:
    """Every object in it has the fields that it names, and no others."""
    found = requests.get(shakespeare_service.url + "/openapi.json", timeout=SECONDS)
    return closed(found.json())


def closed(node: Any) -> Any:
    if isinstance(node, list):
        return [closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    more = {"additionalProperties": False} if "properties" in node else {}
    return {**{name: closed(one) for name, one in node.items()}, **more}


def ask(service: Served, path: str, body: Any, key: dict[str, str]) -> requests.Response:
    url = service.url + path.format(model=MODEL, model_id="any", model_name="any")
    method = "GET" if body is None else "POST"
    return requests.request(method, url, json=body, headers=key, timeout=SECONDS)


def told(document: Any, path: str, answer: requests.Response) -> Any:
    """What the document has of such an answer."""
    method = str(answer.request.method).lower()
    content = document["paths"][path][method]["responses"][str(answer.status_code)]["content"]
    return content[answer.headers["Content-Type"].partition(";")[0]]


def check(document: Any, schema: Any, value: Any) -> None:
    jsonschema_rs.validate({**schema, "components": document["components"]}, value)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/health", None),
        ("/v1/models", None),
        ("/v1/models/{model}", None),
        ("/v1/completions", COMPLETION),
        ("/v1/completions", {**COMPLETION, "n": 2, "logprobs": 2, "echo": True}),
        ("/v1/completions", {**COMPLETION, "max_tokens": 0, "logprobs": 0, "echo": True}),
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "n": 2, **PLACES}),
        ("/v1/models/{model_name}/loaded", None),
        ("/v1/models/{model_name}:predict", [{"prompt": "A", "max_length": 3}]),
        ("/models/{model_id}/predict", [{"prompt": "A", "max_length": 3}] * 2),
        ("/generate", {"prompt": "A", "max_new_tokens": 2}),
        ("/generate", {"prompt": "A", "task_name": "spam"}),
        ("/complete-sentence", {"text": "A"}),
        ("/tokenize", {"text": "RO"}),
        ("/detokenize", {"token_ids": [30, 27]}),
    ],
)
def test_answers(shakespeare_service: Served, document: Any, path: str, body: Any) -> None:
    answer = ask(shakespeare_service, path, body, KEY)
    assert answer.status_code == 200
    check(document, told(document, path, answer)["schema"], answer.json())


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/completions", COMPLETION),
        ("/v1/completions", {**COMPLETION, **SEVERAL, "logprobs": 2, "echo": True}),
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, **SEVERAL, **PLACES}),
    ],
)
def test_streams(shakespeare_service: Served, document: Any, path: str, asked: Any) -> None:
    answer = ask(shakespeare_service, path, {**asked, "stream": True}, KEY)
    item = told(document, path, answer)["itemSchema"]
    texts = [one.removeprefix("data: ") for one in answer.text.split("\n\n")[:-1]]
    assert len(texts) > 3
    for text in texts:
        check(document, item, {"data": text})
    chunk, done = item["properties"]["data"]["anyOf"]
    assert texts.pop() == done["const"]
    for text in texts:
        check(document, chunk["contentSchema"], json.loads(text))
        with pytest.raises(jsonschema_rs.ValidationError):
            check(document, chunk["contentSchema"], {**json.loads(text), "object": None})


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/completions", {**COMPLETION, "prompt": "A" * 600}, 400),
        ("/v1/completions", {**COMPLETION, "model": "x"}, 404),
        ("/v1/completions", {**COMPLETION, "prompt": "A" * (1 << 20)}, 413),
        ("/v1/completions", {**COMPLETION, "n": 0}, 422),
        ("/v1/completions", {**COMPLETION, "suffix": "end", "stream": True}, 422),
        ("/v1/chat/completions", {**CHAT, "messages": [SPEECH] * 100}, 400),
        ("/v1/chat/completions", {**CHAT, "model": "x"}, 404),
        ("/v1/chat/completions", {**CHAT, "messages": []}, 422),
        ("/v1/models/{model_name}:predict", [], 422),
        ("/models/{model_id}/predict", [{"prompt": "A" * 600}], 422),
        ("/generate", {}, 422),
        ("/complete-sentence", {"text": "\N{SNOWMAN}"}, 422),
        ("/tokenize", {"text": "A" * (1 << 20)}, 413),
        ("/detokenize", {"token_ids": [65]}, 422),
    ],
)
def test_refusals(
    shakespeare_service: Served, document: Any, path: str, body: Any, status: int
) -> None:
    answer = ask(shakespeare_service, path, body, KEY)
    assert answer.status_code == status
    check(document, told(document, path, answer)["schema"], answer.json())
    stranger = ask(shakespeare_service, path, COMPLETION, {})
    assert stranger.status_code == 401
    check(document, told(document, path, stranger)["schema"], stranger.json())

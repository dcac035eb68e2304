"""A service over HTTP: keys, bounds, what is malformed, figures, its page, callers who hang up."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from serve_kit import SECONDS, Served, served

from icgpt.checkpoint import open_checkpoint
from icgpt.serve.local import LocalBackend
from icgpt.serve.settings import Settings

KEY = {"x-api-key": "secret"}


@pytest.fixture(scope="module")
def narrow() -> Iterator[Served]:
    """A service with one place and none to wait, small bodies, and three requests a minute."""
    settings = Settings(at_once=1, queue=0, max_body_bytes=1000, rate_limit=3, log_prompts=True)
    with served(LocalBackend(open_checkpoint("shakespeare-char")), settings) as running:
        yield running


def post(service: Served, path: str, body: Any, **more: Any) -> requests.Response:
    return requests.post(service.url + path, json=body, timeout=SECONDS, **{"headers": KEY, **more})


def test_health_is_for_everybody(shakespeare_service: Served) -> None:
    found = requests.get(shakespeare_service.url + "/health", timeout=SECONDS)
    wanted = {"status": "ok", "model": "shakespeare-char", "backend": "local"}
    assert (found.status_code, found.json()) == (200, wanted)


@pytest.mark.parametrize(
    "header",
    [
        "x-api-key: secret",
        "X-API-KEY: other",
        "Authorization: Bearer secret",
        "authorization: api-key secret",
    ],
)
def test_keys_by_curl(shakespeare_service: Served, header: str) -> None:
    url = shakespeare_service.url + "/tokenize"
    curl = ["curl", "-s", "-H", header, "-d", '{"text": "RO"}', url]
    said = subprocess.run(curl, capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == {"token_ids": [30, 27], "tokens": ["R", "O"], "count": 2}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": "Secret"},
        {"x-api-key": "secrets"},
        {"x-api-key": "schlüssel".encode()},
        {"Authorization": "secret"},
        {"Authorization": "Basic secret"},
        {"Authorization": "Bearer"},
    ],
)
def test_who_knows_no_key(shakespeare_service: Served, headers: dict[str, Any]) -> None:
    refused = post(shakespeare_service, "/tokenize", {"text": "RO"}, headers=headers)
    assert refused.status_code == 401
    assert "key" in refused.json()["detail"]
    assert refused.headers["WWW-Authenticate"] == "Bearer"


def test_texts_and_tokens(shakespeare_service: Served) -> None:
    done = post(shakespeare_service, "/detokenize", {"token_ids": [30, 27]})
    assert done.json() == {"text": "RO"}
    for body in ({"token_ids": [65]}, {"token_ids": [-1]}, {"token_ids": ["1"]}):
        assert post(shakespeare_service, "/detokenize", body).status_code == 422


MALFORMED = [
    b"{",
    b"",
    b"[]",
    b"null",
    b'"x"',
    b"\xff\xfe",
    b'{"text": NaN}',
    b'{"text": 1e999}',
    b'{"text": "\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"text": ' + b"[" * 5000,
    b'{"text": ' + b"9" * 5000 + b"}",
    b'{"text": "\\u0000"}',
]


@pytest.mark.parametrize("body", MALFORMED)
def test_bodies_that_make_no_sense(shakespeare_service: Served, body: bytes) -> None:
    for path in ("/tokenize", "/v1/completions", "/v1/chat/completions"):
        url = shakespeare_service.url + path
        refused = requests.post(url, data=body, headers=KEY, timeout=SECONDS)
        assert refused.status_code in (400, 422), (path, body[:20])
        document = refused.json()
        assert document["error"]["message"] if "error" in document else document["detail"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(shakespeare_service: Served, value: str) -> None:
    url = shakespeare_service.url + "/v1/completions"
    body = f'{{"prompt": "A", "temperature": {value}}}'
    refused = requests.post(url, data=body, headers=KEY, timeout=SECONDS)
    assert refused.status_code == 422
    assert refused.json()["error"]["param"] == "temperature"


def test_a_web_page_of_another_host_cannot_ask(shakespeare_service: Served) -> None:
    url = shakespeare_service.url + "/tokenize"
    headers = {**KEY, "Origin": "http://example.org", "Content-Type": "text/plain"}
    refused = requests.post(url, data='{"text": "RO"}', headers=headers, timeout=SECONDS)
    assert refused.status_code == 422
    other = requests.get(url, headers={**KEY, "Host": "example.org"}, timeout=SECONDS)
    assert other.status_code == 400


def test_large_bodies(narrow: Served) -> None:
    refused = post(narrow, "/tokenize", {"text": "x" * 2000})
    assert refused.status_code == 413
    assert "1,000 bytes" in refused.json()["detail"]

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    url = narrow.url + "/v1/completions"
    refused = requests.post(url, data=parts(), timeout=SECONDS)
    assert refused.status_code == 413
    assert refused.json()["error"]["message"]


def test_requests_carry_ids(shakespeare_service: Served) -> None:
    url = shakespeare_service.url + "/health"
    for given, kept in (("mine-1", True), ("no id", False), ("x" * 100, False)):
        found = requests.get(url, headers={"x-request-id": given}, timeout=SECONDS)
        assert (found.headers["x-request-id"] == given) == kept
        assert re.fullmatch(r"[\w.-]+", found.headers["x-request-id"])


def test_figures(shakespeare_service: Served) -> None:
    post(shakespeare_service, "/v1/completions", {"prompt": "ROMEO:", "max_tokens": 3})
    assert requests.get(shakespeare_service.url + "/metrics", timeout=SECONDS).status_code == 401
    url = shakespeare_service.url + "/metrics"
    text = requests.get(url, headers=KEY, timeout=SECONDS).text
    for name in (
        'icgpt_requests_total{method="POST",route="/v1/completions",status="200"}',
        'icgpt_tokens_total{kind="completion"}',
        'icgpt_tokens_total{kind="prompt"}',
        "icgpt_running 0.0",
        "icgpt_alive 1.0",
        "icgpt_restarts 0.0",
        "icgpt_first_token_seconds_count",
    ):
        assert name in text


def test_the_page_needs_no_other_host(shakespeare_service: Served) -> None:
    page = requests.get(shakespeare_service.url + "/docs", timeout=SECONDS).text
    places = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(places) == 3
    for place in places:
        assert not place.startswith(("http", "//"))
        found = requests.get(f"{shakespeare_service.url}/{place}", timeout=SECONDS)
        assert found.status_code == 200
        assert len(found.content) > 1000
    refused = requests.get(shakespeare_service.url + "/docs/..%2fcore.py", timeout=SECONDS)
    assert refused.status_code == 404
    document = requests.get(shakespeare_service.url + "/openapi.json", timeout=SECONDS).json()
    assert "/v1/chat/completions" in document["paths"]
    assert document["components"]["schemas"]["ChatAsked"]["example"]


def test_more_than_there_is_room_for(shakespeare_service: Served, narrow: Served) -> None:
    url = narrow.url + "/v1/completions"
    body = {"prompt": "A", "max_tokens": 1000, "stream": True}
    with requests.post(url, json=body, stream=True, timeout=SECONDS) as stream:
        assert next(pieces := stream.iter_content(1))
        busy = requests.post(url, json={"prompt": "A"}, timeout=SECONDS)
        assert busy.status_code == 429
        assert int(busy.headers["Retry-After"]) >= 1
        assert busy.json()["error"]["type"] == "rate_limit_error"
        assert next(pieces)
    for _ in range(10):
        often = requests.post(url, json={"prompt": "A", "max_tokens": 1}, timeout=SECONDS)
        if "a minute" in often.text:
            break
    assert often.status_code == 429
    assert "3 requests a minute" in often.json()["error"]["message"]
    assert 1 <= int(often.headers["Retry-After"]) <= 20


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_is_not_written_for(shakespeare_service: Served, stream: bool) -> None:
    desk = shakespeare_service.desk
    body = json.dumps({"prompt": "A", "max_tokens": 1000, "n": 4, "stream": stream})
    host, port = shakespeare_service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), SECONDS) as caller:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nx-api-key: secret\r\n"
        caller.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        until(lambda: desk.running == 4)
    until(lambda: desk.running == 0 and desk.waiting == 0)


def until(true: Any) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)

"""Answers that don't verify end with exit code 5, and print nothing that was in them."""

from __future__ import annotations

import json

import pytest
from fake_network import CANISTER, SUBNET, FakeNetwork

from icgpt import connect
from icgpt.cli import run
from icgpt.principal import to_text

REFUSED = ["decode", "1", "-c", to_text(CANISTER)]


pytestmark = pytest.mark.usefixtures("alone")


def reply(method: str, arg: bytes) -> bytes:
    """`variant { Ok = "secret" : text }`."""
    return b"DIDL\x01\x6b\x01\xbc\x8a\x01\x71\x01\x00\x00\x06secret"


def test_an_answer_that_holds(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeNetwork(reply) as fake:
        assert run([*REFUSED, "--network", fake.url]) == 0
    assert capsys.readouterr().out == "secret\n"


def test_answers_that_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    def changed(path: str, body: bytes) -> bytes:
        return body.replace(b"secret", b"Secret")

    for spoil in (changed, lambda path, body: body[:-9] if path.endswith("query") else body):
        with FakeNetwork(reply, spoil=spoil) as fake:
            assert run([*REFUSED, "--network", fake.url]) == 5
            said = capsys.readouterr()
            assert said.out == ""
            assert run([*REFUSED, "--network", fake.url, "--json"]) == 5
            error = json.loads(capsys.readouterr().out)["error"]
            assert (error["kind"], error["exit_code"]) == ("verification", 5)
            assert "not used" in error["hint"]


def test_a_network_that_has_another_key_than_before(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeNetwork(reply) as fake:
        connect.pin(fake.url, SUBNET.key)
        assert run([*REFUSED, "--network", fake.url]) == 5
        assert f"icgpt network trust {fake.url}" in capsys.readouterr().err
        assert run(["network", "trust", fake.url]) == 0
        assert run([*REFUSED, "--network", fake.url]) == 0

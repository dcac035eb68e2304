"""Calls end in the right answer or a typed error, whatever the network does in between."""

from __future__ import annotations

import gzip
import socket
import time
import zlib

import cbor2
import pytest
import requests
from fake_network import CANISTER, ROOT, SUBNET, FakeNetwork

from icgpt.agent import Agent, fetch_root_key
from icgpt.errors import (
    CallTimeoutError,
    NetworkError,
    RejectedError,
    UsageError,
    VerificationError,
)
from icgpt.identity import Identity, anonymous, from_pem
from icgpt.principal import to_text
from icgpt.request_id import hash_of_map

PEM = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
"""


def agent(network: FakeNetwork, who: Identity | None = None) -> Agent:
    return Agent(network.url, ROOT.key, who)


def calls(network: FakeNetwork, kind: str = "call") -> list[str]:
    return [path for path, _ in network.requests if path.endswith(kind)]


def test_update_and_query() -> None:
    with FakeNetwork() as network, agent(network, from_pem(PEM)) as one:
        assert one.update(CANISTER, "echo", b"in") == b"in"
        assert one.query(CANISTER, "echo", b"out") == b"out"
        assert one.query(CANISTER, "echo", b"again") == b"again"
        assert one.module_hash(CANISTER) == b"\x07" * 32
    assert calls(network) == [f"/api/v3/canister/{to_text(CANISTER)}/call"]
    # The node's key is asked for once.
    assert len(calls(network, "read_state")) == 2


def test_requests_are_signed_and_unique() -> None:
    with FakeNetwork() as network, agent(network, from_pem(PEM)) as one:
        one.update(CANISTER, "echo", b"in")
        one.update(CANISTER, "echo", b"in")
    first, second = (body["content"] for _, body in network.requests)
    assert first["nonce"] != second["nonce"]
    assert first["sender"] == from_pem(PEM).principal
    assert network.requests[0][1]["sender_sig"]
    assert first["ingress_expiry"] % 10**9 == 0


def test_anonymous_calls_are_unsigned() -> None:
    with FakeNetwork() as network, agent(network, anonymous()) as one:
        one.query(CANISTER, "echo", b"")
    content = network.requests[0][1]
    assert content["content"]["sender"] == b"\x04"
    assert not content.get("sender_sig")


def test_without_the_synchronous_endpoint_it_polls() -> None:
    with FakeNetwork(synchronous=False) as network, agent(network) as one:
        assert one.update(CANISTER, "echo", b"1") == b"1"
        assert one.update(CANISTER, "echo", b"2") == b"2"
    versions = [path.split("/")[2] for path in calls(network)]
    assert versions == ["v3", "v2", "v2"]


def test_a_call_that_takes_longer_is_polled() -> None:
    waited = []
    with FakeNetwork(polls=4) as network, agent(network) as one:
        assert one.update(CANISTER, "echo", b"1") == b"1"
        network.polls = 2
        assert one.update(CANISTER, "echo", b"2", on_wait=lambda: waited.append(1)) == b"2"
    assert len(waited) == 3
    assert calls(network)[-1].startswith("/api/v2")


def test_an_answer_that_never_comes() -> None:
    with (
        FakeNetwork(polls=10**6) as network,
        agent(network) as one,
        pytest.raises(CallTimeoutError, match="within 0 seconds"),
    ):
        one.update(CANISTER, "echo", b"1", seconds=0.2)


@pytest.mark.parametrize(("status", "times"), [(503, 2), (429, 1), (502, 1), (504, 1), (0, 2)])
def test_transient_faults_are_retried_with_the_same_request_id(status: int, times: int) -> None:
    left = [times]

    def fault(path: str, body: bytes) -> tuple[int, bytes] | None:
        left[0] -= 1
        return (status, b"later") if left[0] >= 0 else None

    with FakeNetwork(faults=[fault]) as network, agent(network) as one:
        assert one.update(CANISTER, "echo", b"1") == b"1"
    ids = {hash_of_map(body["content"]) for _, body in network.requests}
    assert len(network.requests) == times + 1
    assert len(ids) == 1
    assert len(network.done) == 1


def test_other_faults_are_not_retried() -> None:
    faults = [lambda path, body: (400, b"Specified ingress_expiry not within expected range")]
    with (
        FakeNetwork(faults=faults) as network,
        agent(network) as one,
        pytest.raises(NetworkError, match="ingress_expiry") as caught,
    ):
        one.update(CANISTER, "echo", b"1")
    assert "clock" in (caught.value.hint or "")
    assert len(network.requests) == 1


def test_a_gateway_that_knows_no_such_canister() -> None:
    faults = [lambda path, body: (400, b"error: canister_not_found\ndetails: does not exist")]
    with FakeNetwork(faults=faults) as network, agent(network) as one:
        for call in (one.update, one.query):
            with pytest.raises(RejectedError, match="no such canister") as caught:
                call(CANISTER, "work", b"")
            assert caught.value.exit_code == 4


def test_rejects_carry_their_codes() -> None:
    with (
        FakeNetwork(lambda method, arg: (5, "it trapped", "IC0503")) as network,
        agent(network) as one,
    ):
        for call in (one.update, one.query):
            with pytest.raises(RejectedError, match="it trapped") as caught:
                call(CANISTER, "work", b"")
            assert caught.value.reject_code == 5
            assert caught.value.error_code == "IC0503"
            assert caught.value.method == "work"
            assert caught.value.exit_code == 4


def test_a_call_refused_before_it_was_taken() -> None:
    body = cbor2.dumps(
        {
            "status": "non_replicated_rejection",
            "reject_code": 4,
            "reject_message": "not allowed",
            "error_code": "IC0406",
        }
    )
    with (
        FakeNetwork(faults=[lambda path, _: (200, body)]) as network,
        agent(network) as one,
        pytest.raises(RejectedError, match="not allowed"),
    ):
        one.update(CANISTER, "work", b"")


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        Agent(f"http://127.0.0.1:{port}", ROOT.key) as one,
        pytest.raises(NetworkError, match="connection refused") as caught,
    ):
        one.query(CANISTER, "echo", b"")
    assert caught.value.exit_code == 3


# --- Answers that must not be believed


def test_a_wrong_root_key() -> None:
    with FakeNetwork() as network, Agent(network.url, SUBNET.key) as one:
        for call in (one.update, one.query):
            with pytest.raises(VerificationError):
                call(CANISTER, "echo", b"1")


@pytest.mark.parametrize("kind", ["call", "query"])
def test_a_changed_answer(kind: str) -> None:
    def spoil(path: str, body: bytes) -> bytes:
        return body.replace(b"truth", b"trust")

    with (
        FakeNetwork(spoil=spoil) as network,
        agent(network) as one,
        pytest.raises(VerificationError, match="not hold"),
    ):
        (one.update if kind == "call" else one.query)(CANISTER, "echo", b"truth")
    assert len(network.done) == (1 if kind == "call" else 0)


@pytest.mark.parametrize("kind", ["call", "query"])
def test_the_right_answer_after_a_changed_one(kind: str) -> None:
    spoiled = []

    def spoil(path: str, body: bytes) -> bytes:
        if spoiled or not path.endswith(kind):
            return body
        spoiled.append(path)
        return body.replace(b"truth", b"trust")

    with FakeNetwork(spoil=spoil) as network, agent(network) as one:
        call = one.update if kind == "call" else one.query
        assert call(CANISTER, "echo", b"truth") == b"truth"
    assert spoiled
    # The call is not made again: what became of it is read from the network's state.
    assert len(calls(network)) == (1 if kind == "call" else 0)
    assert len({hash_of_map(body["content"]) for _, body in network.requests}) == 2


def test_an_old_answer() -> None:
    with FakeNetwork(clock=lambda: time.time() - 400) as network, agent(network) as one:
        for call in (one.update, one.query):
            with pytest.raises(VerificationError, match="seconds old"):
                call(CANISTER, "echo", b"1")


def test_the_answer_to_another_query() -> None:
    kept: list[bytes] = []

    def spoil(path: str, body: bytes) -> bytes:
        if path.endswith("query"):
            kept.append(body)
            return kept[0]
        return body

    with FakeNetwork(spoil=spoil) as network, agent(network) as one:
        assert one.query(CANISTER, "echo", b"1") == b"1"
        with pytest.raises(VerificationError, match="not hold"):
            one.query(CANISTER, "echo", b"2")


def test_an_unsigned_query() -> None:
    def spoil(path: str, body: bytes) -> bytes:
        if not path.endswith("query"):
            return body
        return cbor2.dumps({k: v for k, v in cbor2.loads(body).items() if k != "signatures"})

    with (
        FakeNetwork(spoil=spoil) as network,
        agent(network) as one,
        pytest.raises(VerificationError, match="unsigned"),
    ):
        one.query(CANISTER, "echo", b"1")


def test_a_query_signed_by_a_stranger() -> None:
    def spoil(path: str, body: bytes) -> bytes:
        return body.replace(b"a-member", b"stranger") if path.endswith("query") else body

    with FakeNetwork(spoil=spoil) as network, agent(network) as one:
        network.node_id = b"a-member" + b"\x02"
        with pytest.raises(VerificationError, match="outside"):
            one.query(CANISTER, "echo", b"1")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        cbor2.dumps(7),
        cbor2.dumps({"status": "odd"}),
        cbor2.dumps(cbor2.CBORTag(4, [1, "a"])),  # a decimal fraction of a letter
        cbor2.dumps(cbor2.CBORTag(5, [2**62, 1])),  # a number of 10^18 digits
        cbor2.dumps({"certificate": cbor2.dumps(cbor2.CBORTag(4, [1, "a"]))}),
    ],
)
def test_answers_that_are_none(body: bytes) -> None:
    with FakeNetwork(spoil=lambda path, _: body) as network, agent(network) as one:
        for call in (one.update, one.query):
            with pytest.raises((NetworkError, VerificationError)):
                call(CANISTER, "echo", b"1")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_an_answer_that_unpacks_to_gigabytes(coding: str) -> None:
    bomb = (gzip.compress if coding == "gzip" else zlib.compress)(bytes(1 << 20), 9)
    with FakeNetwork(spoil=lambda path, _: bomb, headers={"Content-Encoding": coding}) as network:
        with agent(network) as one, pytest.raises(NetworkError, match="compressed"):
            one.query(CANISTER, "echo", b"1")
        with pytest.raises(NetworkError, match="compressed"):
            fetch_root_key(network.url)


def test_a_tls_certificate_that_does_not_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def refuse(*arguments: object, **more: object) -> None:
        asked.append(arguments)
        raise requests.exceptions.SSLError("self-signed certificate")

    monkeypatch.setattr(requests.Session, "request", refuse)
    with (
        Agent("https://example.org", ROOT.key) as one,
        pytest.raises(NetworkError, match="TLS certificate") as caught,
    ):
        one.query(CANISTER, "echo", b"1")
    assert "network start" not in (caught.value.hint or "")
    assert len(asked) == 1


def test_what_no_message_holds_is_not_sent() -> None:
    with FakeNetwork() as network, agent(network) as one:
        for call in (one.update, one.query):
            with pytest.raises(UsageError, match="2 MiB"):
                call(CANISTER, "echo", bytes(2 << 20))
        assert one.update(CANISTER, "echo", bytes(2_000_000)) == bytes(2_000_000)
    assert len(network.requests) == 1


def test_the_root_key_of_a_local_network() -> None:
    with FakeNetwork() as network:
        assert fetch_root_key(network.url) == ROOT.key

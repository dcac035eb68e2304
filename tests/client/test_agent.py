"""Calls end in the right answer or a typed error, whatever the network does in between."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import socket
import ssl
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fake_network import CANISTER, ROOT, SUBNET, FakeNetwork, delegate

from icgpt import protocol
from icgpt.agent import Agent, AsyncAgent, Limits, fetch_root_key
from icgpt.envelope import sign
from icgpt.errors import (
    BusyError,
    CallTimeoutError,
    NetworkError,
    RejectedError,
    UsageError,
    VerificationError,
)
from icgpt.identity import Identity, anonymous, from_pem
from icgpt.principal import to_text
from icgpt.request_id import hash_of_map
from icgpt.steps import Outcome, Pause, Step, run

PEM = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
"""


class Awaited:
    """An AsyncAgent that is awaited at once, so that the tests below are of both."""

    def __init__(self, url: str, root_key: bytes, who: Identity | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        self.agent = AsyncAgent(url, root_key, who)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.agent, name)
        return lambda *arguments, **more: self.loop.run_until_complete(method(*arguments, **more))

    def __enter__(self) -> Awaited:
        return self

    def __exit__(self, *how: object) -> None:
        self.close()
        self.loop.close()


KINDS: dict[str, Callable[..., Any]] = {"blocking": Agent, "awaited": Awaited}
kind_of_agent = ["blocking"]


@pytest.fixture(params=KINDS, autouse=True)
def _each_kind_of_agent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "kind_of_agent", [request.param])


def agent_at(url: str, root_key: bytes, who: Identity | None = None) -> Any:
    return KINDS[kind_of_agent[0]](url, root_key, who)


def agent(network: FakeNetwork, who: Identity | None = None) -> Any:
    return agent_at(network.url, ROOT.key, who)


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


def test_connections_are_kept() -> None:
    with FakeNetwork() as network, agent(network) as one:
        for number in range(10):
            one.update(CANISTER, "echo", b"%d" % number)
            one.query(CANISTER, "echo", b"%d" % number)
    assert len(network.connections) == 1


def test_requests_are_signed_and_unique() -> None:
    with FakeNetwork() as network, agent(network, from_pem(PEM)) as one:
        one.update(CANISTER, "echo", b"in")
        one.update(CANISTER, "echo", b"in")
        one.query(CANISTER, "echo", b"in")
        one.query(CANISTER, "echo", b"in")
    first, *others = (body["content"] for _, body in network.requests)
    assert len({one["nonce"] for one in (first, *others)}) == 5
    assert [one["request_type"] for one in others] == ["call", "query", "read_state", "query"]
    assert first["sender"] == from_pem(PEM).principal
    assert network.requests[0][1]["sender_sig"]
    assert first["ingress_expiry"] % 10**9 == 0


@pytest.mark.parametrize("length", [0, 23, 65_535, 65_536, 2_000_000])
@pytest.mark.parametrize("who", [anonymous(), from_pem(PEM)])
def test_envelopes_are_cbor(length: int, who: Identity) -> None:
    content = {"request_type": "call", "sender": who.principal, "arg": bytes(length), "n": 2**63}
    request_id, data = sign(content, who)
    assert request_id == hash_of_map(content)
    fields = who.sign(b"\x0aic-request" + request_id)
    assert cbor2.loads(data) == {"content": content, **fields}


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


@pytest.mark.parametrize("status", [429, 503])
def test_what_the_network_asks_to_wait_for_is_waited_for(status: int) -> None:
    waits: list[float] = []
    busy = [True]

    def fault(path: str, body: bytes) -> tuple[int, bytes] | None:
        network.headers = {"Retry-After": "7"} if busy else {}
        return (status, b"later") if busy and busy.pop() else None

    # The steps are taken by hand, so that the pause is seen and not slept.
    with FakeNetwork(faults=[fault]) as network, Agent(network.url, ROOT.key) as one:

        def perform(step: Step) -> Outcome:
            if isinstance(step, Pause):
                waits.append(step.seconds)
                return None
            return one.transport.perform(step)

        assert run(protocol.query(one, CANISTER, "echo", b"1"), perform) == b"1"
        assert waits == [7]
        busy.append(True)
        waits.clear()
        with pytest.raises(BusyError, match=str(status)) as caught:
            run(protocol.query(one, CANISTER, "echo", b"1", seconds=5), perform)
    assert not waits, "it asked for more time than there was"
    assert "wait 7 seconds" in (caught.value.hint or "")
    assert caught.value.exit_code == 3


def test_a_network_that_stays_busy() -> None:
    few = Limits(patience=0.05)
    with (
        FakeNetwork(faults=[lambda path, body: (503, b"later")]) as network,
        Agent(network.url, ROOT.key, None, few) as one,
    ):
        for call in (one.query, one.update):
            with pytest.raises(BusyError, match="503: later"):
                call(CANISTER, "echo", b"1")
        assert len(network.requests) == 2 * 3
    assert not network.done


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
        agent_at(f"http://127.0.0.1:{port}", ROOT.key) as one,
        pytest.raises(NetworkError, match="connection refused") as caught,
    ):
        one.query(CANISTER, "echo", b"")
    assert caught.value.exit_code == 3


# --- Answers that must not be believed


def test_a_wrong_root_key() -> None:
    with FakeNetwork() as network, agent_at(network.url, SUBNET.key) as one:
        for call in (one.update, one.query):
            with pytest.raises(VerificationError):
                call(CANISTER, "echo", b"1")


@pytest.mark.parametrize("sharded", [False, True])
def test_a_subnet_that_the_root_key_delegates_to(sharded: bool) -> None:
    delegation = delegate(CANISTER, CANISTER, sharded)
    with FakeNetwork(delegation=delegation) as network, agent(network) as one:
        assert one.update(CANISTER, "echo", b"1") == b"1"
        assert one.query(CANISTER, "echo", b"2") == b"2"
        assert one.module_hash(CANISTER) == b"\x07" * 32


def test_a_subnet_that_may_not_speak_for_the_canister() -> None:
    other = (2).to_bytes(8, "big") + b"\x01\x01"
    with FakeNetwork(delegation=delegate(other, other)) as network, agent(network) as one:
        for call in (one.update, one.query):
            with pytest.raises(VerificationError, match="may not speak"):
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
        for again in (b"2", b"1"):  # nor to the same one, asked before
            with pytest.raises(VerificationError, match="not hold"):
                one.query(CANISTER, "echo", again)


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


def test_a_tls_certificate_that_does_not_hold(tmp_path: Path) -> None:
    asked = []
    context = self_signed(tmp_path)
    with FakeNetwork() as network:
        network.server.socket = context.wrap_socket(network.server.socket, server_side=True)
        network.faults.append(lambda path, body: asked.append(path))
        url = network.url.replace("http:", "https:")
        with agent_at(url, ROOT.key) as one, pytest.raises(NetworkError) as caught:
            one.query(CANISTER, "echo", b"")
    assert "TLS certificate" in caught.value.message
    assert "network start" not in (caught.value.hint or "")
    assert not asked


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "both.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + made.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


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

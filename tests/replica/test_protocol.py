"""The HTTP interface: signatures, expiry, repetition, who may read what, limits, hostile bytes."""

from __future__ import annotations

import random
import time
from typing import Any

import cbor2
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec
from replica_kit import (
    ANONYMOUS,
    MINUTE,
    Ecdsa,
    Ed25519,
    Raw,
    delegate,
    hash_of,
    lookup,
    number,
    verified,
)

from icgpt.candid import encode
from icgpt.principal import self_authenticating, to_text
from icgpt.replica import management_types as types


def send(raw: Raw, content: dict[str, Any], /, **changes: Any) -> requests.Response:
    envelope = {**raw.envelope(content), **changes}
    envelope = {key: value for key, value in envelope.items() if value is not None}
    return raw.post(f"v3/canister/{to_text(content['canister_id'])}/call", envelope)


# --- who signs


@pytest.mark.parametrize("key", [Ed25519(3), Ecdsa(ec.SECP256K1()), Ecdsa(ec.SECP256R1()), None])
def test_senders(raw: Raw, canister: bytes, key: Ed25519 | None) -> None:
    client = Raw(raw.url, raw.root_key, key)
    assert client.update(canister, "whoami") == client.sender
    assert client.query(canister, "whoami") == client.sender


def test_delegations(raw: Raw, canister: bytes) -> None:
    now = time.time_ns()
    session, middle = Ed25519(5), Ecdsa(ec.SECP256K1())
    root = raw.key
    assert root is not None
    chain = [
        delegate(root, middle, now + MINUTE, [canister, b"\x01"]),
        delegate(middle, session, now + MINUTE),
    ]
    client = Raw(raw.url, raw.root_key, root, chain, session)
    assert client.update(canister, "whoami") == raw.sender
    # Not for other canisters, nor for others' requests.
    other = raw.new()
    response = send(client, client.call_content(other, "inc"))
    assert response.status_code == 403
    assert "delegation targets" in response.text
    content = raw.call_content(other, "inc")
    raw.post(f"v2/canister/{to_text(other)}/call", raw.envelope(content))
    response = client.read_response(other, [b"request_status", hash_of(content)])
    assert response.status_code == 403
    # Every link must be signed by the one before, unexpired, and the chain must not be long.
    broken = [
        [delegate(session, middle, now + MINUTE), delegate(middle, session, now + MINUTE)],
        [delegate(root, middle, now + MINUTE)],
        [delegate(root, root, now + MINUTE)],
        [delegate(root, session, now + MINUTE)] * 21,
    ]
    for links in broken:
        client = Raw(raw.url, raw.root_key, root, links, session)
        assert send(client, client.call_content(canister, "inc")).status_code == 403
    late = [delegate(root, session, now - 1)]
    client = Raw(raw.url, raw.root_key, root, late, session)
    response = send(client, client.call_content(canister, "inc"))
    assert (response.status_code, "delegation" in response.text) == (400, True)
    assert number(raw.query(canister, "get")) == 0


@pytest.mark.parametrize("permissions", ["all", "queries", "none", "Queries"])
def test_delegations_may_be_for_queries_alone(raw: Raw, canister: bytes, permissions: str) -> None:
    later = time.time_ns() + MINUTE
    session, middle = Ed25519(5), Ecdsa(ec.SECP256K1())
    root = raw.key
    assert root is not None
    # What a link takes away, the next one can't give back.
    chain = [
        delegate(root, middle, later, permissions=permissions),
        delegate(middle, session, later, permissions="all"),
    ]
    client = Raw(raw.url, raw.root_key, root, chain, session)
    call = send(client, client.call_content(canister, "inc"))
    assert call.status_code == (200 if permissions == "all" else 403)
    state = client.read_response(canister, [b"time"])
    query = client.content("query", canister_id=canister, method_name="get", arg=b"")
    answer = client.post(f"v2/canister/{to_text(canister)}/query", client.envelope(query))
    good = 200 if permissions in ("all", "queries") else 403
    assert (state.status_code, answer.status_code) == (good, good)
    if good == 403:
        assert "permissions" in answer.text


def test_wrong_signatures(raw: Raw, canister: bytes) -> None:
    content = raw.call_content(canister, "inc")
    stranger = Ed25519(9)
    mallory: list[dict[str, Any]] = [
        {"sender_sig": bytes(64)},
        {"sender_sig": b""},
        {"sender_sig": stranger.sign(b"\x0aic-request" + hash_of(content))},
        {"sender_pubkey": stranger.der},
        {"sender_pubkey": None, "sender_sig": None},
        {"sender_pubkey": b"\x30" * 44},
        {"content": {**content, "arg": b"changed"}},
        {"content": {**content, "sender": stranger.principal}},
        {"content": {**content, "sender": ANONYMOUS}},
    ]
    for changes in mallory:
        response = send(raw, content, **changes)
        assert response.status_code == 403, changes
        assert "Failed to authenticate request" in response.text
    ecdsa = Ecdsa(ec.SECP256K1())
    client = Raw(raw.url, raw.root_key, ecdsa)
    assert send(client, content, sender_sig=bytes(64)).status_code == 403
    assert send(client, content, sender_sig=bytes(71)).status_code == 403
    assert number(raw.query(canister, "get")) == 0


# --- when


@pytest.mark.parametrize("minutes", [-1, 6, 10**6])
def test_expiry(raw: Raw, canister: bytes, minutes: int) -> None:
    content = raw.call_content(canister, "inc")
    content["ingress_expiry"] = time.time_ns() + minutes * MINUTE
    response = send(raw, content)
    assert response.status_code == 400
    assert "Invalid request expiry" in response.text
    content = raw.content("query", canister_id=canister, method_name="get", arg=b"")
    content["ingress_expiry"] = time.time_ns() + minutes * MINUTE
    path = f"v2/canister/{to_text(canister)}/query"
    assert raw.post(path, raw.envelope(content)).status_code == 400


def test_a_request_runs_once(raw: Raw, canister: bytes) -> None:
    content = raw.call_content(canister, "inc")
    answers = [send(raw, content) for _ in range(3)]
    for response in answers:
        tree = verified(cbor2.loads(response.content)["certificate"], raw.root_key)
        assert raw.outcome(tree, hash_of(content)) == ("replied", b"\x01\x00\x00\x00")
    path = f"v2/canister/{to_text(canister)}/call"
    assert raw.post(path, raw.envelope(content)).status_code == 202
    assert number(raw.query(canister, "get")) == 1


# --- reading the state


def test_only_the_sender_reads_a_request(raw: Raw, canister: bytes) -> None:
    content = raw.call_content(canister, "inc")
    send(raw, content)
    path = [b"request_status", hash_of(content)]
    assert raw.outcome(raw.read(canister, path), hash_of(content))[0] == "replied"
    for key in (Ed25519(8), None):
        response = Raw(raw.url, raw.root_key, key).read_response(canister, path)
        assert response.status_code == 403
        assert response.text == "The user tries to access Request ID not signed by the caller."
    unknown = bytes(32)
    tree = raw.read(canister, [b"request_status", unknown])
    assert lookup(tree, b"request_status", unknown, b"status") is None


def test_what_may_be_read(raw: Raw, canister: bytes) -> None:
    tree = raw.read(
        canister,
        [b"time"],
        [b"canister", canister, b"module_hash"],
        [b"canister", canister, b"controllers"],
        [b"canister", canister, b"metadata", b"nothing"],
        [b"subnet"],
    )
    assert (
        lookup(tree, b"canister", canister, b"module_hash") == raw.status(canister)["module_hash"]
    )
    controllers = lookup(tree, b"canister", canister, b"controllers")
    assert cbor2.loads(controllers or b"") == [raw.sender]
    assert lookup(tree, b"canister", canister, b"metadata", b"nothing") is None
    subnet = self_authenticating(raw.root_key)
    assert lookup(tree, b"subnet", subnet, b"public_key") == raw.root_key
    ranges = cbor2.loads(lookup(tree, b"subnet", subnet, b"canister_ranges") or b"")
    assert any(low <= canister <= high for low, high in ranges)
    # Other canisters' data is not in the certificate, and not claimed to be absent.
    with pytest.raises(AssertionError, match="pruned"):
        lookup(tree, b"canister", canister, b"certified_data")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ([b"nothing"], 404),
        ([], 404),
        ([b"canister"], 404),
        ([b"canister", b"\x01", b"certified_data"], 404),
        ([b"canister", b"\x01", b"module_hash"], 400),
        ([b"request_status", b"short"], 400),
        ([b"request_status", bytes(32), b"nothing"], 404),
        ([b"request_status"], 404),
        ([b"subnet"] * 9, 400),
    ],
)
def test_what_may_not_be_read(raw: Raw, canister: bytes, path: list[bytes], status: int) -> None:
    assert raw.read_response(canister, path).status_code == status


def test_one_request_at_a_time_and_few_paths(raw: Raw, canister: bytes) -> None:
    paths = [[b"request_status", bytes([n]) * 32] for n in range(2)]
    assert raw.read_response(canister, *paths).status_code == 400
    assert raw.read_response(canister, *[[b"time"]] * 1_001).status_code == 400


def test_private_metadata_is_for_controllers(raw: Raw) -> None:
    def section(name: bytes, content: bytes) -> bytes:
        body = bytes([len(name)]) + name + content
        return b"\x00" + bytes([len(body)]) + body

    module = b"\x00asm\x01\x00\x00\x00" + section(b"icp:public open", b"for all")
    module += section(b"icp:private shut", b"for some")
    canister = raw.new(module)
    stranger = Raw(raw.url, raw.root_key, None)
    for client, name, status in ((raw, b"shut", 200), (stranger, b"open", 200)):
        path = [b"canister", canister, b"metadata", name]
        assert client.read_response(canister, path).status_code == status
        assert lookup(client.read(canister, path), *path) in (b"for all", b"for some")
    path = [b"canister", canister, b"metadata", b"shut"]
    assert stranger.read_response(canister, path).status_code == 403


def test_the_subnet_can_be_read(raw: Raw) -> None:
    subnet = self_authenticating(raw.root_key)
    content = raw.content("read_state", paths=[[b"subnet"], [b"time"]])
    for version in ("v2", "v3"):
        path = f"{version}/subnet/{to_text(subnet)}/read_state"
        response = raw.post(path, raw.envelope(content))
        tree = verified(cbor2.loads(response.content)["certificate"], raw.root_key)
        assert lookup(tree, b"subnet", subnet, b"type") == b"application"
    assert raw.post("v2/subnet/aaaaa-aa/read_state", raw.envelope(content)).status_code == 400


# --- the rest


def test_status_and_cors(raw: Raw) -> None:
    response = requests.get(f"{raw.url}/api/v2/status", timeout=10)
    status = cbor2.loads(response.content)
    assert status["root_key"] == raw.root_key
    assert status["replica_health_status"] == "healthy"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    preflight = requests.options(f"{raw.url}/api/v3/canister/aaaaa-aa/call", timeout=10)
    assert preflight.status_code == 204
    assert "Content-Type" in preflight.headers["Access-Control-Allow-Headers"]
    missing = requests.get(f"{raw.url}/nothing", timeout=10)
    assert (missing.status_code, missing.headers["Access-Control-Allow-Origin"]) == (404, "*")


def test_effective_canister_ids(raw: Raw, canister: bytes) -> None:
    content = raw.call_content(canister, "inc")
    for path in ("v3/canister/ryjl3-tyaaa-aaaaa-aaaba-cai/call", "v3/canister/nonsense/call"):
        assert raw.post(path, raw.envelope(content)).status_code == 400
    argument = encode([types.CANISTER], [{"canister_id": canister}])
    content = raw.call_content(b"", "canister_status", argument)
    path = "v3/canister/ryjl3-tyaaa-aaaaa-aaaba-cai/call"
    assert raw.post(path, raw.envelope(content)).status_code == 400
    fields = {"canister_id": b"", "method_name": "canister_status", "arg": argument}
    content = raw.content("query", **fields)
    for effective, status in ((canister, 200), (b"", 200), (raw.new(), 400)):
        path = f"v2/canister/{to_text(effective)}/query"
        assert raw.post(path, raw.envelope(content)).status_code == status


@pytest.mark.parametrize("size", [(2 << 20) + 1, 5 << 20])
def test_too_large_bodies(raw: Raw, canister: bytes, size: int) -> None:
    response = send(raw, raw.call_content(canister, "size", bytes(size)))
    assert response.status_code == 413


def test_wrong_fields(raw: Raw, canister: bytes) -> None:
    anonymous = Raw(raw.url, raw.root_key, None)
    good = anonymous.call_content(canister, "inc")
    wrong: list[Any] = [
        {**good, "arg": "text"},
        {**good, "method_name": 5},
        {**good, "canister_id": bytes(30)},
        {**good, "sender": None},
        {**good, "nonce": bytes(33)},
        {**good, "ingress_expiry": -1},
        {**good, "ingress_expiry": True},
        {**good, "request_type": "query"},
        {key: value for key, value in good.items() if key != "arg"},
        [],
        None,
    ]
    path = f"v3/canister/{to_text(canister)}/call"
    for content in wrong:
        assert anonymous.post(path, {"content": content}).status_code == 400, content
    assert anonymous.post(path, [good]).status_code == 400
    assert anonymous.post(path, b"").status_code == 400
    read = anonymous.content("read_state", paths=[["text"]])
    path = f"v2/canister/{to_text(canister)}/read_state"
    assert anonymous.post(path, {"content": read}).status_code == 400


def test_mutated_bodies_never_make_trouble(raw: Raw, canister: bytes) -> None:
    rng = random.Random(3)
    contents = {
        "call": raw.call_content(canister, "inc"),
        "query": raw.content("query", canister_id=canister, method_name="get", arg=b""),
        "read_state": raw.content("read_state", paths=[[b"time"]]),
    }
    for kind, content in contents.items():
        good = cbor2.dumps(raw.envelope(content))
        for _ in range(300):
            body = bytearray(good)
            for _ in range(rng.randrange(1, 6)):
                body[rng.randrange(len(body))] ^= rng.randrange(1, 256)
            cut = rng.randrange(1, len(body) + 1) if rng.random() < 0.3 else len(body)
            if bytes(body[:cut]) == good:
                continue
            response = raw.post(f"v2/canister/{to_text(canister)}/{kind}", bytes(body[:cut]))
            assert response.status_code in (400, 403, 413), response.text
    assert number(raw.query(canister, "get")) == 0

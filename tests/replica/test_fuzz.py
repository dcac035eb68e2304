"""Ten thousand bodies that no client would send: refused in words, with no crash and no leak.

Some are random bytes, some random CBOR, most are good requests with something replaced: bytes of
the encoding, or whole fields by values of another kind. What is left of a request after that may
even be a good one, which is answered as such.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
import requests
from replica_kit import ANONYMOUS, Ed25519, Raw, delegate, number
from test_signatures import ALGORITHM, Authenticator, der

from icgpt import network
from icgpt.errors import VerificationError
from icgpt.principal import to_text
from icgpt.replica.http_certification import HttpRequest, HttpResponse, verify
from icgpt.replica.signatures import SignatureError, Verifier

COUNT = 10_000
WARM = 2_000  # bodies after which the process has what memory it needs
LEAK = 24 << 20
REFUSED = {400, 403, 404, 413}
ANSWERED = {200, 202}
_LEAVES: list[Callable[[random.Random], Any]] = [
    lambda _: None,
    lambda _: True,
    lambda rng: rng.randrange(-(1 << 70), 1 << 70),
    lambda rng: rng.randrange(300),
    lambda rng: rng.random(),
    lambda rng: rng.randbytes(rng.randrange(40)),
    lambda rng: "".join(map(chr, rng.choices(range(0xD800), k=rng.randrange(12)))),
    lambda rng: cbor2.CBORTag(rng.randrange(60_000), rng.randbytes(3)),
    lambda rng: cbor2.CBORSimpleValue(rng.choice([0, 19, 32, 255])),
    lambda _: "request_type",
]


def value(rng: random.Random, depth: int = 0) -> Any:
    """A random value of whatever shape."""
    if depth < 5 and rng.random() < 0.4:
        inner = [value(rng, depth + 1) for _ in range(rng.randrange(5))]
        if rng.random() < 0.5:
            return inner
        keys = ["content", "sender_sig", "paths", "arg", rng.randrange(9), rng.randbytes(2)]
        return dict(zip(rng.sample(keys, len(inner)), inner, strict=True))
    return rng.choice(_LEAVES)(rng)


def replaced(rng: random.Random, good: Any) -> Any:
    """A copy with one of its values, somewhere, replaced, dropped or doubled."""
    if isinstance(good, dict) and good and rng.random() < 0.9:
        key = rng.choice(list(good))
        changed = dict(good)
        if rng.random() < 0.1:
            del changed[key]
        elif rng.random() < 0.1:
            changed[value(rng, 5) if rng.random() < 0.5 else "more"] = changed[key]
        else:
            changed[key] = replaced(rng, good[key])
        return changed
    if isinstance(good, list) and good and rng.random() < 0.9:
        index = rng.randrange(len(good))
        return [*good[:index], replaced(rng, good[index]), *good[index + rng.randrange(2) :]]
    if isinstance(good, bytes) and good and rng.random() < 0.5:
        return mutated(rng, good)
    return value(rng)


def mutated(rng: random.Random, good: bytes) -> bytes:
    """A copy with a few bytes changed, or its end cut off, or something behind it."""
    body = bytearray(good)
    for _ in range(rng.randrange(1, 6)):
        body[rng.randrange(len(body))] ^= rng.randrange(1, 256)
    match rng.randrange(4):
        case 0:
            del body[rng.randrange(1, len(body) + 1) :]
        case 1:
            body += rng.randbytes(rng.randrange(9))
    return bytes(body)


def body_of(rng: random.Random, good: Any) -> bytes:
    """One body; the unhashable keys that random maps may have are left to the next try."""
    kind = rng.random()
    if kind < 0.05:
        return rng.randbytes(rng.randrange(64))
    if kind < 0.4:
        return mutated(rng, cbor2.dumps(good))
    try:
        return cbor2.dumps(value(rng) if kind < 0.5 else replaced(rng, good))
    except (TypeError, ValueError, OverflowError):
        return body_of(rng, good)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_ten_thousand_bodies(tmp_path: Path) -> None:
    info = network.start(tmp_path, port=0)
    try:
        raw = Raw(info.url, info.root_key)
        raw.http.trust_env = False
        canister = raw.new()
        before = 0
        rng = random.Random(11)
        seen: dict[int, int] = {}
        for index, (path, good) in enumerate(requests_like(raw, canister, rng)):
            if index == WARM:
                before = resident(info.pid)
            response = raw.http.post(f"{info.url}/api/{path}", body_of(rng, good), timeout=60)
            assert response.status_code in REFUSED | ANSWERED, (path, response.text)
            assert response.status_code in ANSWERED or response.text
            seen[response.status_code] = seen.get(response.status_code, 0) + 1
        assert resident(info.pid) - before < LEAK
        assert sum(seen[status] for status in seen if status in REFUSED) > COUNT * 0.9, seen
        assert network.status(tmp_path) is not None
        assert number(raw.update(canister, "inc")) > 0
    finally:
        network.stop(tmp_path)


def requests_like(raw: Raw, canister: bytes, rng: random.Random) -> Any:
    """Good requests of all kinds, and where they go."""
    session, root = Ed25519(5), raw.key
    assert root is not None
    anonymous = Raw(raw.url, raw.root_key, None)
    text = to_text(canister)
    for index in range(COUNT):
        client = anonymous if rng.random() < 0.5 else raw
        if rng.random() < 0.2:
            chain = [delegate(root, session, 1 << 62, [canister])]
            client = Raw(raw.url, raw.root_key, root, chain, session)
        target = b"" if rng.random() < 0.2 else canister
        method = rng.choice(["get", "inc", "canister_status", "install_code", "raw_rand"])
        kind = rng.choice(["call", "query", "read_state"])
        if kind == "read_state":
            paths = [[b"time"], [b"canister", canister, b"module_hash"]]
            content = client.content(kind, paths=paths)
        else:
            fields = {"canister_id": target, "method_name": method}
            content = client.content(kind, arg=b"DIDL\0\0", nonce=bytes([index % 256]), **fields)
        version = rng.choice(["v2", "v3"])
        yield f"{version}/canister/{text}/{kind}", client.envelope(content)


def test_odd_urls(raw: Raw) -> None:
    session = requests.Session()
    session.trust_env = False
    for path in (
        "/api/v2/canister//call",
        "/api/v2/canister/aaaaa-aa/nothing",
        "/api/v9/status",
        "/api/v2/canister/%00/query",
        "/api/v2/canister/" + "a" * 500 + "/query",
        "/api/v2/subnet/xx/read_state",
        "/_/messages?last=x",
        "/%ff%fe",
        "/..//../etc",
    ):
        for send in (session.get, session.post, session.put):
            response = send(raw.url + path, data=b"", timeout=10)
            assert 400 <= response.status_code < 500, (path, response.status_code)
    assert (
        raw.post("v2/canister/aaaaa-aa/query", {"content": {"sender": ANONYMOUS}}).status_code
        == 400
    )


def test_odd_keys_and_signatures() -> None:
    """Whatever stands in a key or signature, the verdict is that it does not hold."""
    rng = random.Random(12)
    verifier = Verifier(b"")
    keys = [Authenticator(kind).der for kind in ("ES256", "RS256", "Ed25519")]
    keys += [der(ALGORITHM + b"\x02", b"\x0a" + bytes(8) + b"\x01\x01seed"), Ed25519(1).der]
    signatures = [Authenticator(kind).sign(b"message") for kind in ("ES256", "Ed25519")]
    leaf = [2, b"sig", [1, [2, b"a", [3, b""]], [4, bytes(32)]]]
    signatures.append(cbor2.dumps({"certificate": cbor2.dumps({"tree": leaf}), "tree": leaf}))
    for _ in range(5_000):
        key, signature = rng.choice(keys), rng.choice(signatures)
        with pytest.raises(SignatureError):
            verifier.verify(mutated(rng, key), b"message", mutated(rng, signature) + b"\0")


def test_odd_certificate_headers(raw: Raw) -> None:
    rng = random.Random(13)
    tree = cbor2.dumps([2, b"http_assets", [2, b"/", [3, bytes(32)]]])
    certificate = cbor2.dumps({"tree": [3, b""], "signature": bytes(48)})
    request = HttpRequest("GET", "/")
    for _ in range(5_000):
        parts = {"certificate": certificate, "tree": tree, "expr_path": cbor2.dumps(["a"])}
        name = rng.choice(list(parts))
        parts[name] = mutated(rng, parts[name])
        coded = [f"{key}=:{base64.b64encode(part).decode()}:" for key, part in parts.items()]
        header = mutated(rng, ", ".join([*coded, f"version={rng.randrange(4)}"]).encode())
        headers = (("IC-Certificate", header.decode("latin-1")), ("IC-CertificateExpression", ""))
        with pytest.raises(VerificationError):
            verify(request, HttpResponse(200, headers, b""), bytes(10), raw.root_key)

"""Signatures of authenticators (WebAuthn) and of canisters, as Internet Identity makes them.

Keys and signatures are made here from the specifications, with nothing of the server's own code.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import time
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from replica_kit import MINUTE, Ed25519, Raw, delegate, root_hash

from icgpt import network
from icgpt.principal import to_text

ALGORITHM = bytes.fromhex("060a2b0601040183b84301")


def der(oid: bytes, payload: bytes) -> bytes:
    def value(tag: int, content: bytes) -> bytes:
        size = len(content)
        head = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
        return bytes([tag]) + head + content

    return value(0x30, value(0x30, oid) + value(0x03, b"\0" + payload))


class Authenticator(Ed25519):
    """A WebAuthn device: signs its own data and a hash of the client's, with the challenge."""

    challenge_of: Any = staticmethod(lambda message: message)

    def __init__(self, kind: str, bits: int = 2048) -> None:
        super().__init__(21)
        self.kind = kind
        if kind == "ES256":
            self.private: Any = ec.derive_private_key(99, ec.SECP256R1())
            numbers = self.private.public_key().public_numbers()
            x, y = (n.to_bytes(32, "big") for n in (numbers.x, numbers.y))
            cose: dict[int, Any] = {1: 2, 3: -7, -1: 1, -2: x, -3: y}
        elif kind == "RS256":
            self.private = rsa.generate_private_key(65537, bits)
            public = self.private.public_key().public_numbers()
            n = public.n.to_bytes((bits + 7) // 8, "big")
            cose = {1: 3, 3: -257, -1: n, -2: public.e.to_bytes(3, "big")}
        else:
            self.private = self.key
            cose = {1: 1, 3: -8, -1: 6, -2: self.key.public_key().public_bytes_raw()}
        self.der = der(ALGORITHM + b"\x01", cbor2.dumps(cose))

    def sign(self, message: bytes) -> bytes:
        challenge = base64.urlsafe_b64encode(self.challenge_of(message)).rstrip(b"=").decode()
        client = json.dumps({"type": "webauthn.get", "challenge": challenge, "origin": "http://x"})
        data = hashlib.sha256(b"x").digest() + b"\x01\0\0\0\0"
        signed = data + hashlib.sha256(client.encode()).digest()
        if self.kind == "ES256":
            inner = self.private.sign(signed, ec.ECDSA(hashes.SHA256()))
        elif self.kind == "RS256":
            inner = self.private.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            inner = self.private.sign(signed)
        envelope = {"authenticator_data": data, "client_data_json": client, "signature": inner}
        return b"\xd9\xd9\xf7" + cbor2.dumps(envelope)


@pytest.fixture(scope="module", params=["ES256", "RS256", "Ed25519"])
def device(request: pytest.FixtureRequest) -> Authenticator:
    return Authenticator(request.param)


def refused(raw: Raw, canister: bytes) -> str:
    content = raw.content("query", canister_id=canister, method_name="whoami", arg=b"")
    response = raw.post(f"v2/canister/{to_text(canister)}/query", raw.envelope(content))
    assert response.status_code == 403, response.text
    return response.text


def test_authenticators(raw: Raw, canister: bytes, device: Authenticator) -> None:
    signed = dataclasses.replace(raw, key=device)
    assert signed.query(canister, "whoami") == device.principal
    signed.update(canister, "inc")
    # A browser lets the device sign a delegation once, and the session's key the requests.
    session = Ed25519(22)
    chain = [delegate(device, session, time.time_ns() + MINUTE)]
    lent = dataclasses.replace(raw, key=device, signer=session, chain=chain)
    assert lent.query(canister, "whoami") == device.principal


@pytest.mark.parametrize("kind", ["ES256", "RS256", "Ed25519"])
def test_forged_authenticators(raw: Raw, canister: bytes, kind: str) -> None:
    device = Authenticator(kind)
    signed = dataclasses.replace(raw, key=device)
    device.challenge_of = lambda message: message + b"!"
    assert "another challenge" in refused(signed, canister)
    device.challenge_of = lambda message: message
    genuine = device.sign

    def forged(message: bytes) -> bytes:
        envelope = cbor2.loads(genuine(message))
        envelope["authenticator_data"] += b"\0"
        return cbor2.dumps(envelope)

    device.sign = forged  # type: ignore[method-assign]
    assert "Invalid signature" in refused(signed, canister)
    for odd in (b"", b"\xff", cbor2.dumps([1]), cbor2.dumps({"signature": b""})):
        device.sign = lambda _message, odd=odd: odd or b"x"  # type: ignore[method-assign]
        assert "WebAuthn" in refused(signed, canister)


def test_keys_that_are_none(raw: Raw, canister: bytes) -> None:
    device = Authenticator("RS256", 1024)
    signed = dataclasses.replace(raw, key=device)
    assert "malformed COSE key" in refused(signed, canister)
    for payload in (
        b"",
        cbor2.dumps({1: 2, 3: -7, -1: 2, -2: bytes(32), -3: bytes(32)}),
        cbor2.dumps({1: 2, 3: -7, -1: 1, -2: bytes(32), -3: bytes(32)}),
    ):
        device.der = der(ALGORITHM + b"\x01", payload)
        assert "Invalid public key" in refused(signed, canister)
    for key in (b"\x30", bytes(5_000), der(ALGORITHM + b"\x03", b"x"), der(b"\x06\x00", b"")):
        device.der = key
        assert "Invalid public key" in refused(signed, canister)


class Issuer(Ed25519):
    """A canister that signs as Internet Identity does, by certifying what it has signed."""

    def __init__(self, raw: Raw, canister: bytes, seed: bytes = b"seed") -> None:
        self.raw, self.canister, self.seed = raw, canister, seed
        self.der = der(ALGORITHM + b"\x02", bytes([len(canister)]) + canister + seed)

    def tree(self, message: bytes) -> list[Any]:
        leaf = [2, hashlib.sha256(message).digest(), [3, b""]]
        return [2, b"sig", [2, hashlib.sha256(self.seed).digest(), leaf]]

    def sign(self, message: bytes) -> bytes:
        tree = self.tree(message)
        self.raw.update(self.canister, "certify", root_hash(tree))
        certificate = self.raw.query(self.canister, "certificate")
        return b"\xd9\xd9\xf7" + cbor2.dumps({"certificate": certificate, "tree": tree})


@pytest.fixture
def issuer(raw: Raw) -> Issuer:
    return Issuer(raw, raw.new())


def test_canister_signatures(raw: Raw, canister: bytes, issuer: Issuer) -> None:
    session = Ed25519(23)
    chain = [delegate(issuer, session, time.time_ns() + MINUTE)]
    login = dataclasses.replace(raw, key=issuer, signer=session, chain=chain)
    assert login.query(canister, "whoami") == issuer.principal
    login.update(canister, "inc")
    login.update(canister, "inc")  # the same chain once more
    # The signature stays good when the canister goes on: its certificate is kept with it.
    raw.update(issuer.canister, "certify", b"something else")
    assert login.query(canister, "whoami") == issuer.principal
    # The request itself may be signed by the canister as well.
    assert dataclasses.replace(raw, key=issuer).query(canister, "whoami") == issuer.principal


def test_forged_canister_signatures(raw: Raw, canister: bytes, issuer: Issuer) -> None:
    session = Ed25519(24)
    expiration = time.time_ns() + MINUTE
    link = delegate(issuer, session, expiration)
    good = cbor2.loads(link["signature"])

    def attempt(signature: Any, key: Ed25519 = issuer) -> str:
        data = signature if isinstance(signature, bytes) else cbor2.dumps(signature)
        chain = [{**link, "signature": data}]
        return refused(dataclasses.replace(raw, key=key, signer=session, chain=chain), canister)

    other_message = good | {"tree": issuer.tree(b"other")}
    assert "not what the canister has certified" in attempt(other_message)
    assert "no signature of this message" in attempt(cbor2.loads(issuer.sign(b"other")))
    certificate = cbor2.loads(good["certificate"])
    certificate["signature"] = raw.root_key[-48:]
    assert "Invalid canister signature" in attempt(good | {"certificate": cbor2.dumps(certificate)})
    certificate["delegation"] = {}
    assert "no other subnets" in attempt(good | {"certificate": cbor2.dumps(certificate)})
    for odd in (b"x", cbor2.dumps([]), cbor2.dumps({"tree": []}), good | {"certificate": b"x"}):
        assert "Invalid canister signature" in attempt(odd)
    # Another canister's certificate, and another seed of the same canister.
    assert "Invalid canister signature" in attempt(good, Issuer(raw, canister))
    assert "no signature of this" in attempt(good, Issuer(raw, issuer.canister, b"other seed"))
    short = Issuer(raw, issuer.canister)
    short.der = der(ALGORITHM + b"\x02", b"\x1d")
    assert "Invalid public key" in attempt(good, short)


def test_another_networks_canisters_sign_nothing_here(
    raw: Raw, canister: bytes, tmp_path: Any
) -> None:
    info = network.start(tmp_path, port=0)
    try:
        elsewhere = Raw(info.url, info.root_key)
        issuer = Issuer(elsewhere, elsewhere.new())
        signed = dataclasses.replace(raw, key=issuer)
        assert "Invalid canister signature" in refused(signed, canister)
    finally:
        network.stop(tmp_path)

"""Who signed a request: every kind of key and signature that the platform accepts from senders.

Keys are DER: Ed25519; ECDSA on secp256k1 and P-256; COSE keys of WebAuthn authenticators (ES256,
RS256, Ed25519), whose signature holds what the authenticator was given and what it signed; and
canister signatures, as Internet Identity makes them: a certificate of this network that shows a
canister's certified data, and a hash tree under that with a leaf for each signed message.
See https://internetcomputer.org/docs/references/ic-interface-spec#signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import OrderedDict
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from icgpt import certificate
from icgpt.errors import VerificationError
from icgpt.principal import MAX_LENGTH

MAX_KEY = 2_048
RSA_BITS = (2_048, 8_192)
KEPT = 256  # canister signatures that are known to hold; checking one takes milliseconds
_OID = bytes.fromhex("060a2b0601040183b84301")  # 1.3.6.1.4.1.56387.1, and one byte more
_COSE, _CANISTER = _OID + b"\x01", _OID + b"\x02"
_CURVES = ("secp256k1", "secp256r1")
_ROOT_DOMAIN = b"\x0dic-state-root"
_HASH = ec.ECDSA(hashes.SHA256())
_Plain = Ed25519PublicKey | ec.EllipticCurvePublicKey
_Authenticator = _Plain | rsa.RSAPublicKey


class SignatureError(Exception):
    """A signature that does not hold, or a key that is none; the text says which."""


class Verifier:
    """Checks signatures, those of canisters against the network's root key."""

    def __init__(self, root_key: bytes) -> None:
        self._root_key = root_key
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def verify(self, der: bytes, message: bytes, signature: bytes) -> None:
        """Raise SignatureError unless the key signed the message."""
        if len(der) > MAX_KEY:
            raise SignatureError("Invalid public key: too long.")
        payload = _unwrapped(der, _CANISTER)
        if payload is not None:
            self._verify_canister(payload, message, signature)
            return
        payload = _unwrapped(der, _COSE)
        try:
            if payload is not None:
                _verify_authenticator(payload, message, signature)
            else:
                _verify_plain(_plain_key(der), message, signature)
        except InvalidSignature as error:
            raise SignatureError("Invalid signature.") from error

    def _verify_canister(self, payload: bytes, message: bytes, signature: bytes) -> None:
        """Check a canister signature. `payload` is a length, a canister id and a seed."""
        length = payload[0] if payload else MAX_LENGTH + 1
        if length > MAX_LENGTH or length + 1 > len(payload):
            raise SignatureError("Invalid public key: malformed canister signature key.")
        tag = hashlib.sha256(
            hashlib.sha256(payload).digest() + hashlib.sha256(message).digest() + signature
        ).digest()
        if tag in self._known:
            self._known.move_to_end(tag)
            return
        canister, seed = payload[1 : length + 1], payload[length + 1 :]
        try:
            self._check_tree(canister, seed, message, signature)
        except VerificationError as error:
            raise SignatureError(f"Invalid canister signature: {error}") from error
        self._known[tag] = None
        while len(self._known) > KEPT:
            self._known.popitem(last=False)

    def _check_tree(self, canister: bytes, seed: bytes, message: bytes, signature: bytes) -> None:
        match certificate.decode_cbor(signature, "the signature"):
            case {"certificate": bytes(outer), "tree": list(tree)}:
                pass
            case _:
                raise VerificationError("it lacks its certificate or tree")
        match certificate.decode_cbor(outer, "the certificate"):
            case {"delegation": _}:
                raise VerificationError("this network has no other subnets")
            case {"tree": list(state), "signature": bytes(signed)}:
                pass
            case _:
                raise VerificationError("the certificate lacks its tree or signature")
        digest = certificate.root_hash(tree)
        shown = certificate.root_hash(state)
        data = certificate.find(state, [b"canister", canister, b"certified_data"])
        if data is None or data[:1] != [certificate.LEAF] or data[1] != digest:
            raise VerificationError("the tree is not what the canister has certified")
        path = [hashlib.sha256(seed).digest(), hashlib.sha256(message).digest()]
        leaf = certificate.find(tree, [b"sig", *path])
        if leaf is None or leaf[:1] != [certificate.LEAF] or leaf[1] != b"":
            raise VerificationError("the tree has no signature of this message")
        certificate.verify_bls(self._root_key, signed, _ROOT_DOMAIN + shown)


def _unwrapped(der: bytes, oid: bytes) -> bytes | None:
    """Return the bit string of a key of the given algorithm; None for one of another."""
    head = b"\x30" + bytes([len(oid)]) + oid
    body = _content(der, 0x30)
    if body is None or not body.startswith(head):
        return None
    bits = _content(body[len(head) :], 0x03)
    if bits is None or bits[:1] != b"\0":
        raise SignatureError("Invalid public key: malformed DER.")
    return bits[1:]


def _content(der: bytes, tag: int) -> bytes | None:
    """Return what a DER value with this tag holds; None if it is not just such a value."""
    if len(der) < 2 or der[0] != tag:
        return None
    size, start = der[1], 2
    if size > 0x80:
        start += size - 0x80
        size = int.from_bytes(der[2:start], "big")
    return der[start:] if len(der) == start + size else None


@lru_cache(maxsize=256)
def _plain_key(der: bytes) -> _Plain:
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        text = "Invalid public key: unknown algorithm or malformed."
        raise SignatureError(text) from error
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    raise SignatureError("Invalid public key: unknown algorithm or malformed.")


def _verify_plain(key: _Plain, message: bytes, signature: bytes) -> None:
    if isinstance(key, Ed25519PublicKey):
        key.verify(signature, message)
    elif len(signature) != 64:
        raise SignatureError("Invalid signature: not 64 bytes long.")
    else:
        r, s = (int.from_bytes(signature[i : i + 32], "big") for i in (0, 32))
        key.verify(utils.encode_dss_signature(r, s), message, _HASH)


def _verify_authenticator(cose: bytes, message: bytes, signature: bytes) -> None:
    """Check a WebAuthn signature, of which the message is the challenge."""
    key = _cose_key(cose)
    try:
        envelope = certificate.decode_cbor(signature, "the signature")
    except VerificationError as error:
        raise SignatureError("Invalid WebAuthn signature: no CBOR.") from error
    match envelope:
        case {
            "authenticator_data": bytes(data),
            "client_data_json": str() | bytes() as client_data,
            "signature": bytes(inner),
        }:
            pass
        case _:
            raise SignatureError("Invalid WebAuthn signature: a part is missing.")
    text = client_data.encode() if isinstance(client_data, str) else client_data
    if _challenge(text) != message:
        raise SignatureError("Invalid WebAuthn signature: it is for another challenge.")
    signed = data + hashlib.sha256(text).digest()
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(inner, signed, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, Ed25519PublicKey):
        key.verify(inner, signed)
    else:
        key.verify(inner, signed, _HASH)


def _challenge(client_data: bytes) -> bytes:
    """Return the challenge in an authenticator's client data."""
    try:
        document = json.loads(client_data)
        challenge = document["challenge"]
        return base64.b64decode(challenge + "=" * (-len(challenge) % 4), b"-_", validate=True)
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
        raise SignatureError("Invalid WebAuthn signature: malformed client data.") from error


@lru_cache(maxsize=256)
def _cose_key(cose: bytes) -> _Authenticator:
    """Read a COSE key (RFC 9052): of P-256 with ES256, RSA with RS256, or Ed25519."""
    try:
        match certificate.decode_cbor(cose, "the key"):
            case {1: 2, 3: -7, -1: 1, -2: bytes(x), -3: bytes(y)} if len(x) == len(y) == 32:
                numbers = (int.from_bytes(x, "big"), int.from_bytes(y, "big"))
                return ec.EllipticCurvePublicNumbers(*numbers, ec.SECP256R1()).public_key()
            case {1: 3, 3: -257, -1: bytes(n), -2: bytes(e)}:
                return _rsa_key(int.from_bytes(n, "big"), int.from_bytes(e, "big"))
            case {1: 1, 3: -8, -1: 6, -2: bytes(x)}:
                return Ed25519PublicKey.from_public_bytes(x)
    except (ValueError, TypeError, VerificationError, UnsupportedAlgorithm) as error:
        raise SignatureError("Invalid public key: malformed COSE key.") from error
    raise SignatureError("Invalid public key: a COSE key of an unknown kind.")


def _rsa_key(n: int, e: int) -> rsa.RSAPublicKey:
    low, high = RSA_BITS
    if not low <= n.bit_length() <= high:
        raise ValueError(f"an RSA key has {low} to {high} bits")
    return rsa.RSAPublicNumbers(e, n).public_key()

"""What clients send: request ids, envelopes, and whether the sender really signed them.

A request's id is a hash that does not depend on its encoding; the sender signs that id, or a chain
of delegations leads from the sender's key to the one that signed (`signatures.py`).
See https://internetcomputer.org/docs/references/ic-interface-spec#authentication.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from icgpt import principal
from icgpt.candid import unsigned_leb128
from icgpt.replica import cbor
from icgpt.replica.signatures import SignatureError, Verifier

EXPIRY_WINDOW = 300 * 10**9
PERMITTED_DRIFT = 30 * 10**9
MAX_DELEGATIONS = 20
MAX_TARGETS = 1_000
MAX_PATHS = 1_000
MAX_METHOD_NAME = 20_000
_REQUEST = b"\x0aic-request"
_DELEGATION = b"\x1aic-request-auth-delegation"


class RequestError(Exception):
    """A request that is refused before it counts, with its HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Request:
    """An authenticated request."""

    id: bytes
    kind: str  # "call", "query" or "read_state"
    sender: bytes
    expiry: int
    canister_id: bytes = b""
    method: str = ""
    arg: bytes = field(default=b"", repr=False)
    paths: tuple[tuple[bytes, ...], ...] = ()
    targets: frozenset[bytes] | None = None  # canisters that the delegation is limited to


def hash_value(value: Any) -> bytes:
    """Return the representation-independent hash of a value."""
    if isinstance(value, bytes):
        return hashlib.sha256(value).digest()
    if isinstance(value, str):
        return hashlib.sha256(value.encode()).digest()
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return hashlib.sha256(unsigned_leb128(value)).digest()
    if isinstance(value, list | tuple):
        return hashlib.sha256(b"".join(hash_value(item) for item in value)).digest()
    if isinstance(value, dict):
        return hash_map(value)
    raise RequestError(400, f"Malformed request: {type(value).__name__} has no hash")


def hash_map(content: dict[str, Any]) -> bytes:
    """Return the representation-independent hash of a map; entries that are None don't count."""
    pairs = [
        hashlib.sha256(key.encode()).digest() + hash_value(value)
        for key, value in content.items()
        if value is not None
    ]
    return hashlib.sha256(b"".join(sorted(pairs))).digest()


def parse(body: bytes, kind: str, now: int, verifier: Verifier) -> Request:
    """Read and authenticate an envelope of the given kind; raises RequestError."""
    try:
        envelope = cbor.loads(body)
    except cbor.CborError as error:
        raise RequestError(400, f"Could not parse body as {_noun(kind)}: {error}") from error
    if not isinstance(envelope, dict):
        raise RequestError(400, f"Could not parse body as {_noun(kind)}: no map")
    content = _get(envelope, "content", dict)
    if content.get("request_type") != kind:
        raise RequestError(400, f"Could not parse body as {_noun(kind)}: wrong request_type")
    request_id = hash_map(content)
    sender = _get(content, "sender", bytes)
    expiry = _get(content, "ingress_expiry", int)
    nonce = _get(content, "nonce", bytes, b"")
    if len(sender) > principal.MAX_LENGTH or len(nonce) > 32:
        raise RequestError(400, "Malformed request: sender or nonce too long")
    if kind == "call" or sender != principal.ANONYMOUS:
        _check_expiry(expiry, now)
    targets = _authenticate(envelope, kind, sender, request_id, now, verifier)
    if kind == "read_state":
        paths = _paths(content)
        return Request(request_id, kind, sender, expiry, paths=paths, targets=targets)
    canister_id = _get(content, "canister_id", bytes)
    method = _get(content, "method_name", str)
    if len(canister_id) > principal.MAX_LENGTH or len(method) > MAX_METHOD_NAME:
        raise RequestError(400, "Malformed request: canister_id or method_name too long")
    if targets is not None and canister_id not in targets:
        text = f"Canister {principal.to_text(canister_id)} is not one of the delegation targets."
        raise _unauthentic(request_id, text)
    arg = _get(content, "arg", bytes)
    return Request(request_id, kind, sender, expiry, canister_id, method, arg, (), targets)


def _noun(kind: str) -> str:
    return {"call": "call request", "query": "query request"}.get(kind, "read request")


def _get(content: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
    value = content.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RequestError(400, f"Malformed request: field `{key}` is missing or of a wrong type")
    return value


def _paths(content: dict[str, Any]) -> tuple[tuple[bytes, ...], ...]:
    paths = _get(content, "paths", list)
    if len(paths) > MAX_PATHS:
        raise RequestError(400, f"Malformed request: more than {MAX_PATHS} paths")
    for path in paths:
        if not isinstance(path, list) or not all(isinstance(label, bytes) for label in path):
            raise RequestError(400, "Malformed request: a path is a list of labels")
    return tuple(tuple(path) for path in paths)


def _check_expiry(expiry: int, now: int) -> None:
    latest = now + EXPIRY_WINDOW + PERMITTED_DRIFT
    if not now <= expiry <= latest:
        raise RequestError(
            400,
            "Invalid request expiry: Specified ingress_expiry not within expected range: "
            f"Minimum allowed expiry: {now}, Maximum allowed expiry: {latest}, "
            f"Provided expiry: {expiry}",
        )


def _unauthentic(request_id: bytes, text: str) -> RequestError:
    return RequestError(403, f"Failed to authenticate request 0x{request_id.hex()} due to: {text}")


def _authenticate(
    envelope: dict[str, Any],
    kind: str,
    sender: bytes,
    request_id: bytes,
    now: int,
    verifier: Verifier,
) -> frozenset[bytes] | None:
    """Check the signature; return the canisters that the delegations allow, None for all."""
    key = _get(envelope, "sender_pubkey", bytes, b"")
    signature = _get(envelope, "sender_sig", bytes, b"")
    chain = _get(envelope, "sender_delegation", list, [])
    if sender == principal.ANONYMOUS:
        if key or signature or chain:
            raise _unauthentic(request_id, "An anonymous request must not be signed.")
        return None
    if not key or not signature:
        raise _unauthentic(request_id, "Missing signature from sender.")
    if principal.self_authenticating(key) != sender:
        text = "The public key does not hash to the sender's principal."
        raise _unauthentic(request_id, text)
    if len(chain) > MAX_DELEGATIONS:
        raise _unauthentic(request_id, f"more than {MAX_DELEGATIONS} delegations")
    targets: frozenset[bytes] | None = None
    seen = {key}
    for link in chain:
        if not isinstance(link, dict):
            raise RequestError(400, "Malformed request: a delegation is a map")
        delegation = _get(link, "delegation", dict)
        link_signature = _get(link, "signature", bytes)
        _verify(verifier, key, _DELEGATION + hash_map(delegation), link_signature, request_id)
        if _get(delegation, "expiration", int) < now:
            raise RequestError(400, "Invalid delegation expiry: the delegation has expired")
        permissions = _get(delegation, "permissions", str, "all")
        if permissions not in ("all", "queries") or (permissions == "queries" and kind == "call"):
            text = f"The delegation's permissions {permissions[:40]!r} do not allow this {kind}."
            raise _unauthentic(request_id, text)
        allowed = _get(delegation, "targets", list, [])
        if len(allowed) > MAX_TARGETS or not all(isinstance(t, bytes) for t in allowed):
            raise RequestError(400, "Malformed request: wrong delegation targets")
        if delegation.get("targets") is not None:
            targets = frozenset(allowed) if targets is None else targets & frozenset(allowed)
        key = _get(delegation, "pubkey", bytes)
        if key in seen:
            raise _unauthentic(request_id, "Chain of delegations contains a cycle.")
        seen.add(key)
    _verify(verifier, key, _REQUEST + request_id, signature, request_id)
    return targets


def _verify(
    verifier: Verifier, key: bytes, message: bytes, signature: bytes, request_id: bytes
) -> None:
    try:
        verifier.verify(key, message, signature)
    except SignatureError as error:
        raise _unauthentic(request_id, str(error)) from error

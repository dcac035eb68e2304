"""Calls on canisters: ic-py's identities and request signing, with what ic-py lacks.

Added here, in one place: verified certificates and signed queries, freshness, a nonce per request,
the synchronous call endpoint (v3) with v2 and polling behind it, retries that keep the request id,
time limits, typed errors with reject codes. Arguments and replies are Candid bytes, principals raw
bytes. Specification: https://internetcomputer.org/docs/references/ic-interface-spec#http-interface
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from icgpt import certificate
from icgpt.candid import unsigned_leb128
from icgpt.certificate import Certificate
from icgpt.errors import (
    CallTimeoutError,
    IcgptError,
    NetworkError,
    RejectedError,
    UsageError,
    VerificationError,
    no_such_canister,
)
from icgpt.identity import Identity, anonymous
from icgpt.principal import to_text
from icgpt.transport import Answer, Closing, Transport

EXPIRY_SECONDS: Final = 240  # of the five minutes that the platform allows, for clocks that differ
SYNC_SECONDS: Final = 40.0  # the synchronous endpoint answers or says 202 within about 10
QUERY_SECONDS: Final = 60.0
UPDATE_SECONDS: Final = 600.0
# Of the 2 MiB that a message may have, less what signature and names take.
MAX_ARGUMENT_BYTES: Final = (2 << 20) - 2048
_MAX_KEYED_SUBNETS: Final = 16
_ED25519_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")


class Agent(Closing):
    """Speaks for one identity to one network. `close()` it, or use it as a context manager.

    Args:
        url: of the network, such as http://127.0.0.1:4943 or https://icp-api.io.
        identity: who calls; anonymous when left out.
        root_key: DER of the network's root key, under which every answer must verify.
    """

    def __init__(self, url: str, root_key: bytes, identity: Identity | None = None) -> None:
        certificate.bls_key(root_key)
        self.root_key = root_key
        self.identity = identity or anonymous()
        self.transport = Transport(url)
        self._synchronous = True
        self._node_keys: dict[bytes, dict[bytes, bytes]] = {}

    @property
    def url(self) -> str:
        """The network's address."""
        return self.transport.url

    # --- The three kinds of requests

    def query(
        self, canister: bytes, method: str, arg: bytes, effective: bytes | None = None
    ) -> bytes:
        """The reply of a query, whose node's signature was verified."""
        effective = canister if effective is None else effective
        request_id, envelope = self._sign(self._content("query", canister, method, arg))
        answer = self._post(f"/api/v2/canister/{to_text(effective)}/query", envelope, QUERY_SECONDS)
        response = _cbor_map(answer, "the query's answer")
        signatures = response.get("signatures")
        match response:
            case {"status": "replied", "reply": {"arg": bytes(reply)}}:
                signed: dict[str, Any] = {"status": "replied", "reply": {"arg": reply}}
                self._verify_query(signed, signatures, request_id, effective)
                return reply
            case {"status": "rejected", "reject_code": int(code), "reject_message": str(text)}:
                signed = {"status": "rejected", "reject_code": code, "reject_message": text}
                error_code = response.get("error_code")
                if isinstance(error_code, str):
                    signed["error_code"] = error_code
                self._verify_query(signed, signatures, request_id, effective)
                raise RejectedError(text, code, str(error_code or ""), method)
        raise NetworkError(f"{self.url} gave a malformed answer to a query")

    def update(
        self,
        canister: bytes,
        method: str,
        arg: bytes,
        effective: bytes | None = None,
        seconds: float = UPDATE_SECONDS,
        on_wait: Callable[[], None] | None = None,
    ) -> bytes:
        """The certified reply of an update call.

        Args:
            canister: the callee; b"" is the management canister.
            method: its method.
            arg: its argument in Candid.
            effective: the canister whose subnet takes the call, where it isn't the callee.
            seconds: how long to wait for the answer.
            on_wait: called between polls; with it, the call is not held open on the network's side.
        """
        effective = canister if effective is None else effective
        deadline = time.monotonic() + seconds
        content = self._content("call", canister, method, arg, nonce=os.urandom(16))
        request_id, envelope = self._sign(content)
        cert = self._call(effective, method, request_id, envelope, deadline, on_wait is None)
        pause = 0.02
        while True:
            if cert is not None:
                done, reply = _outcome(cert, request_id, method)
                if done:
                    return reply
                expired = cert.time_ns > content["ingress_expiry"]
                if expired and _status(cert, request_id) is None:
                    raise CallTimeoutError(
                        f"the network dropped the call of '{method}' before it was begun",
                        "Nothing was done. Try again.",
                    )
            if time.monotonic() > deadline:
                raise CallTimeoutError(
                    f"no answer to '{method}' within {seconds:.0f} seconds",
                    "The canister may still be at work: see `icgpt status`.",
                )
            if on_wait is not None:
                on_wait()
            time.sleep(pause)
            pause = min(1.4 * pause, 0.5)
            cert = self.read_state([[b"request_status", request_id]], effective)

    def read_state(self, paths: Sequence[Sequence[bytes]], effective: bytes) -> Certificate:
        """A verified certificate that shows these paths of the system's state."""
        content = {
            "request_type": "read_state",
            "sender": self.identity.principal,
            "paths": [list(path) for path in paths],
            "ingress_expiry": _expiry(),
        }
        _, envelope = self._sign(content)
        path = f"/api/v2/canister/{to_text(effective)}/read_state"
        answer = self._post(path, envelope, QUERY_SECONDS)
        match _cbor_map(answer, "the state's answer"):
            case {"certificate": bytes(data)}:
                return certificate.parse(data, self.root_key, effective)
        raise NetworkError(f"{self.url} gave a malformed answer to a read of its state")

    # --- What the system's state says of a canister

    def module_hash(self, canister: bytes) -> bytes | None:
        """SHA-256 of a canister's module, certified; None when it has none."""
        path = [b"canister", canister, b"module_hash"]
        return self.read_state([path], canister).lookup(*path)

    def controllers(self, canister: bytes) -> list[bytes] | None:
        """The controllers of a canister, certified; None when there is no such canister."""
        path = [b"canister", canister, b"controllers"]
        value = self.read_state([path], canister).lookup(*path)
        if value is None:
            return None
        decoded = certificate.decode_cbor(value, "the list of controllers")
        if not isinstance(decoded, list) or not all(isinstance(one, bytes) for one in decoded):
            raise VerificationError("a malformed list of controllers")
        return decoded

    # --- Inside

    def _content(
        self, kind: str, canister: bytes, method: str, arg: bytes, **more: Any
    ) -> dict[str, Any]:
        if len(arg) > MAX_ARGUMENT_BYTES:
            raise UsageError(
                f"the argument of '{method}' has {len(arg):,} bytes; a message holds 2 MiB",
                "Send less at once.",
            )
        return {
            "request_type": kind,
            "sender": self.identity.principal,
            "canister_id": canister,
            "method_name": method,
            "arg": arg,
            "ingress_expiry": _expiry(),
            **more,
        }

    def _sign(self, content: dict[str, Any]) -> tuple[bytes, bytes]:
        """Request id and signed envelope."""
        from ic.agent import sign_request

        request_id, envelope = sign_request(content, self.identity.signer)
        return request_id, envelope

    def _post(self, path: str, envelope: bytes, seconds: float) -> Answer:
        answer = self.transport.post(path, envelope, seconds, time.monotonic() + seconds)
        if answer.status != 200:
            raise _http_error(self.url, answer)
        return answer

    def _call(
        self,
        effective: bytes,
        method: str,
        request_id: bytes,
        envelope: bytes,
        deadline: float,
        hold: bool,
    ) -> Certificate | None:
        """Hands the call over; the certificate when the network already has the outcome."""
        until = min(deadline, time.monotonic() + EXPIRY_SECONDS / 2)
        place = f"canister/{to_text(effective)}/call"
        if hold and self._synchronous:
            answer = self.transport.post(f"/api/v3/{place}", envelope, SYNC_SECONDS, until)
            if answer.status not in (404, 405):
                return self._taken(answer, method, effective)
            self._synchronous = False
        answer = self.transport.post(f"/api/v2/{place}", envelope, SYNC_SECONDS, until)
        return self._taken(answer, method, effective)

    def _taken(self, answer: Answer, method: str, effective: bytes) -> Certificate | None:
        if answer.status == 202:
            return None
        if answer.status != 200:
            raise _http_error(self.url, answer)
        match _cbor_map(answer, "the call's answer"):
            case {"certificate": bytes(data)}:
                return certificate.parse(data, self.root_key, effective)
            case {"reject_code": int(code), "reject_message": str(text), **rest}:
                raise RejectedError(text, code, str(rest.get("error_code") or ""), method)
        raise NetworkError(f"{self.url} gave a malformed answer to a call")

    def _verify_query(
        self, signed: dict[str, Any], signatures: Any, request_id: bytes, effective: bytes
    ) -> None:
        """Every signature of the answer must hold, under a certified node key."""
        if not isinstance(signatures, list) or not signatures:
            raise VerificationError(f"{self.url} gave an unsigned answer to a query")
        for entry in signatures[:64]:
            match entry:
                case {"timestamp": int(stamp), "signature": bytes(sig), "identity": bytes(node)}:
                    certificate.check_age(stamp)
                    message = {**signed, "timestamp": stamp, "request_id": request_id}
                    key = self._node_key(effective, node)
                    _verify_ed25519(key, sig, b"\x0bic-response" + hash_of_map(message))
                case _:
                    raise VerificationError("a malformed signature on a query's answer")

    def _node_key(self, effective: bytes, node: bytes) -> bytes:
        keys = self._node_keys.get(effective)
        if keys is None or node not in keys:
            cert = self.read_state([[b"subnet"]], effective)
            place = (b"subnet", cert.subnet_id, b"node")
            keys = {}
            for one in cert.labels(*place):
                if (key := cert.lookup(*place, one, b"public_key")) is not None:
                    keys[one] = key
            while len(self._node_keys) >= _MAX_KEYED_SUBNETS:
                self._node_keys.pop(next(iter(self._node_keys)))
            self._node_keys[effective] = keys
        if node not in keys:
            raise VerificationError("a query was answered by a node outside the canister's subnet")
        return keys[node]

    def close(self) -> None:
        """Ends the connections."""
        self.transport.close()


def fetch_root_key(url: str) -> bytes:
    """The root key that a network gives as its own: for local networks only, and then pinned."""
    with Transport(url, attempts=2) as transport:
        answer = transport.get("/api/v2/status")
    if answer.status != 200:
        raise _http_error(url, answer)
    match _cbor_map(answer, "the network's status"):
        case {"root_key": bytes(key)}:
            certificate.bls_key(key)
            return key
    raise NetworkError(f"{url} gives no root key")


def hash_of_map(value: Mapping[str, Any]) -> bytes:
    """The representation-independent hash that the platform signs answers by."""
    pairs = [
        hashlib.sha256(name.encode()).digest() + _hash_of_value(item)
        for name, item in value.items()
    ]
    return hashlib.sha256(b"".join(sorted(pairs))).digest()


def _hash_of_value(value: Any) -> bytes:
    match value:
        case bytes():
            data = value
        case str():
            data = value.encode()
        case bool():
            raise VerificationError("an answer holds a value that can't be hashed")
        case int() if value >= 0:
            data = unsigned_leb128(value)
        case dict():
            return hash_of_map(value)
        case list():
            data = b"".join(_hash_of_value(one) for one in value)
        case _:
            raise VerificationError("an answer holds a value that can't be hashed")
    return hashlib.sha256(data).digest()


def _expiry() -> int:
    return (int(time.time()) + EXPIRY_SECONDS) * 10**9


def _status(cert: Certificate, request_id: bytes) -> bytes | None:
    return cert.lookup(b"request_status", request_id, b"status")


def _outcome(cert: Certificate, request_id: bytes, method: str) -> tuple[bool, bytes]:
    """Whether the call is finished, and its reply; a reject is raised."""
    place = (b"request_status", request_id)
    status = _status(cert, request_id)
    if status == b"replied":
        reply = cert.lookup(*place, b"reply")
        if reply is None:
            raise VerificationError("the certificate says replied and holds no reply")
        return True, reply
    if status == b"rejected":
        code = certificate.read_leb(cert.lookup(*place, b"reject_code") or b"")
        text = (cert.lookup(*place, b"reject_message") or b"").decode("utf-8", "replace")
        error_code = (cert.lookup(*place, b"error_code") or b"").decode("utf-8", "replace")
        raise RejectedError(text, code, error_code, method)
    if status == b"done":
        raise CallTimeoutError(
            f"the network finished '{method}' and no longer keeps its reply",
            "It was done, but the answer is lost; look with `icgpt status` before trying again.",
        )
    return False, b""


def _verify_ed25519(der: bytes, signature: bytes, message: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(der) != 44 or not der.startswith(_ED25519_PREFIX):
        raise VerificationError("a node's key is no Ed25519 key")
    try:
        Ed25519PublicKey.from_public_bytes(der[12:]).verify(signature, message)
    except InvalidSignature as error:
        raise VerificationError("the signature on a query's answer does not hold") from error


def _cbor_map(answer: Answer, what: str) -> dict[str, Any]:
    decoded = certificate.decode_cbor(answer.body, what)
    if not isinstance(decoded, dict):
        raise NetworkError(f"{what} is malformed")
    return decoded


def _http_error(url: str, answer: Answer) -> IcgptError:
    text = answer.text
    hint = None
    if answer.status == 400 and "canister_not_found" in text:
        # Mainnet's gateways know which canisters there are, and say so instead of the subnet.
        return no_such_canister(url)
    if "expir" in text.lower():
        hint = "Check this machine's clock."
    elif answer.status in (429, 503):
        hint = "The network is busy. Try again in a moment."
    return NetworkError(f"{url} answered {answer.status}: {text or 'no reason given'}", hint)

"""What is said to a network and what is believed of its answers, as steps.

Verified certificates and signed queries, freshness, a nonce per request, the synchronous call
endpoint (v3) with v2 and polling behind it, typed errors with reject codes. Arguments and replies
are Candid bytes, principals raw bytes. An answer that makes no sense (damaged, or meant for another
request) is not used; the network is asked again over a new connection, a few times.
Specification: https://internetcomputer.org/docs/references/ic-interface-spec#http-interface
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from icgpt import certificate
from icgpt.certificate import Certificate
from icgpt.envelope import sign
from icgpt.errors import (
    CallTimeoutError,
    IcgptError,
    MalformedError,
    NetworkError,
    RejectedError,
    UsageError,
    VerificationError,
    no_such_canister,
)
from icgpt.identity import Identity, anonymous
from icgpt.principal import to_text
from icgpt.request_id import hash_of_map
from icgpt.retries import Backoff, Limits, OutOfTimeError, http_error, send
from icgpt.steps import Answer, Pause, Steps

EXPIRY_SECONDS: Final = 240  # of the five minutes that the platform allows, for clocks that differ
# Of the 2 MiB that a message may have, less what signature and names take.
MAX_ARGUMENT_BYTES: Final = (2 << 20) - 2048
_MISREADS: Final = 4  # answers in a row that make no sense
_WAITING_PATIENCE: Final = 4  # times the usual: the call is with the network already
_UNKNOWN_SECONDS: Final = 2.0  # after which a call that the network doesn't know is sent again
_FIRST_POLL: Final = 0.02
_LONGEST_POLL: Final = 0.5
_MAX_KEYED_SUBNETS: Final = 16
_MAX_SIGNATURES: Final = 64
_ED25519_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")

T = TypeVar("T")


class Caller:
    """Who calls which network: what the steps below need to know.

    Args:
        url: of the network, such as http://127.0.0.1:4943 or https://icp-api.io.
        root_key: DER of the network's root key, under which every answer must verify.
        identity: who calls; anonymous when left out.
        limits: how long calls may take.
    """

    def __init__(
        self,
        url: str,
        root_key: bytes,
        identity: Identity | None = None,
        limits: Limits | None = None,
    ) -> None:
        certificate.bls_key(root_key)
        self.url = url.rstrip("/")
        self.root_key = root_key
        self.identity = identity or anonymous()
        self.limits = limits or Limits()
        self.synchronous = True
        self.node_keys: dict[bytes, dict[bytes, bytes]] = {}
        self._open()

    def _open(self) -> None:
        """Makes what carries requests, where there is such a thing."""


# --- The three kinds of requests


def query(
    caller: Caller,
    canister: bytes,
    method: str,
    arg: bytes,
    effective: bytes | None = None,
    seconds: float | None = None,
) -> Steps[bytes]:
    """The reply of a query, whose node's signature was verified."""
    effective = canister if effective is None else effective
    deadline = time.monotonic() + (caller.limits.query if seconds is None else seconds)
    request_id, envelope = sign(_content(caller, "query", canister, method, arg), caller.identity)
    path = f"/api/v2/canister/{to_text(effective)}/query"

    def once(fresh: bool) -> Steps[bytes]:
        answer = yield from _post(caller, path, envelope, deadline, fresh)
        response = _cbor_map(answer, "the query's answer")
        reply, signed, error = _read_query(response, caller.url, method)
        signatures = response.get("signatures")
        yield from _verify_query(caller, signed, signatures, request_id, effective, deadline)
        if error is not None:
            raise error
        return reply

    return (yield from _until_it_makes_sense(once, deadline))


def update(
    caller: Caller,
    canister: bytes,
    method: str,
    arg: bytes,
    effective: bytes | None = None,
    seconds: float | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Steps[bytes]:
    """The certified reply of an update call.

    Args:
        caller: who calls which network.
        canister: the callee; b"" is the management canister.
        method: its method.
        arg: its argument in Candid.
        effective: the canister whose subnet takes the call, where it isn't the callee.
        seconds: how long to wait for the answer.
        on_wait: called between polls; with it, the call is not held open on the network's side.
    """
    content = call_content(caller, canister, method, arg)
    effective = canister if effective is None else effective
    return (yield from carry_out(caller, content, effective, seconds, on_wait))


def call_content(caller: Caller, canister: bytes, method: str, arg: bytes) -> dict[str, Any]:
    """An update call for `carry_out`: what its request id is the hash of."""
    return _content(caller, "call", canister, method, arg)


def carry_out(
    caller: Caller,
    content: dict[str, Any],
    effective: bytes,
    seconds: float | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Steps[bytes]:
    """The certified reply of a call that was made up already; see `update`."""
    method = str(content["method_name"])
    seconds = caller.limits.update if seconds is None else seconds
    deadline = time.monotonic() + seconds
    request_id, envelope = sign(content, caller.identity)
    late = CallTimeoutError(
        f"no answer to '{method}' within {seconds:.0f} seconds",
        "The canister may still be at work: see `icgpt status`.",
        maybe_sent=True,
    )
    pause = _FIRST_POLL
    misread = 0
    handed_over: float | None = None
    again = False
    cert: Certificate | None
    while True:
        try:
            if handed_over is not None:
                try:
                    cert = yield from _request_status(
                        caller, request_id, effective, deadline, misread
                    )
                except NetworkError as error:
                    error.maybe_sent = True  # not this look, but the call before it
                    raise
            else:
                held = on_wait is None
                try:
                    cert = yield from _hand_over(
                        caller, effective, method, envelope, deadline, held
                    )
                except NetworkError as error:
                    error.maybe_sent = error.maybe_sent or again
                    raise
                finally:
                    handed_over = time.monotonic()
            if cert is not None:
                done, reply = _outcome(cert, request_id, method)
                if done:
                    return reply
                if _status(cert, request_id) is None:
                    if cert.time_ns > content["ingress_expiry"]:
                        raise CallTimeoutError(
                            f"the network dropped the call of '{method}' before it was begun",
                            "Nothing was done. Try again.",
                        )
                    if time.monotonic() - handed_over > _UNKNOWN_SECONDS:
                        handed_over, again = None, True  # the network has not heard of it
            misread = 0
        except (VerificationError, MalformedError):
            misread += 1
            if misread == _MISREADS:
                raise
        except OutOfTimeError as error:
            raise (late if error.maybe_sent else error) from error
        if time.monotonic() + pause > deadline:
            raise late
        if on_wait is not None:
            on_wait()
        yield Pause(pause)
        pause = min(1.4 * pause, _LONGEST_POLL)


def read_state(
    caller: Caller,
    paths: Sequence[Sequence[bytes]],
    effective: bytes,
    seconds: float | None = None,
) -> Steps[Certificate]:
    """A verified certificate that shows these paths of the system's state."""
    deadline = time.monotonic() + (caller.limits.query if seconds is None else seconds)

    def once(fresh: bool) -> Steps[Certificate]:
        return _read_state(caller, paths, effective, deadline, caller.limits, fresh)

    return (yield from _until_it_makes_sense(once, deadline))


def root_key(url: str, limits: Limits) -> Steps[bytes]:
    """The root key that a network gives as its own."""
    answer = yield from send(url, "/api/v2/status", None, time.monotonic() + limits.query, limits)
    if answer.status != 200:
        raise http_error(url, answer)
    match _cbor_map(answer, "the network's status"):
        case {"root_key": bytes(key)}:
            certificate.bls_key(key)
            return key
    raise MalformedError(f"{url} gives no root key")


# --- What the system's state says of a canister


def module_hash(caller: Caller, canister: bytes) -> Steps[bytes | None]:
    """SHA-256 of a canister's module, certified; None when it has none."""
    path = [b"canister", canister, b"module_hash"]
    return (yield from read_state(caller, [path], canister)).lookup(*path)


def controllers(caller: Caller, canister: bytes) -> Steps[list[bytes] | None]:
    """The controllers of a canister, certified; None when there is no such canister."""
    path = [b"canister", canister, b"controllers"]
    value = (yield from read_state(caller, [path], canister)).lookup(*path)
    if value is None:
        return None
    decoded = certificate.decode_cbor(value, "the list of controllers")
    if not isinstance(decoded, list) or not all(isinstance(one, bytes) for one in decoded):
        raise VerificationError("a malformed list of controllers")
    return decoded


# --- Requests


def _content(caller: Caller, kind: str, canister: bytes, method: str, arg: bytes) -> dict[str, Any]:
    if len(arg) > MAX_ARGUMENT_BYTES:
        raise UsageError(
            f"the argument of '{method}' has {len(arg):,} bytes; a message holds 2 MiB",
            "Send less at once.",
        )
    return {
        "request_type": kind,
        "canister_id": canister,
        "method_name": method,
        "arg": arg,
        **_whose(caller),
    }


def _whose(caller: Caller) -> dict[str, Any]:
    """What every request carries; its id is its own, so that no earlier answer fits it."""
    expiry = (int(time.time()) + EXPIRY_SECONDS) * 10**9
    sender = caller.identity.principal
    return {"sender": sender, "ingress_expiry": expiry, "nonce": os.urandom(16)}


def _post(
    caller: Caller,
    path: str,
    envelope: bytes,
    deadline: float,
    fresh: bool,
    limits: Limits | None = None,
) -> Steps[Answer]:
    limits = limits or caller.limits
    answer = yield from send(caller.url, path, envelope, deadline, limits, fresh=fresh)
    if answer.status != 200:
        raise _http_error(caller.url, answer)
    return answer


def _read_state(
    caller: Caller,
    paths: Sequence[Sequence[bytes]],
    effective: bytes,
    deadline: float,
    limits: Limits,
    fresh: bool,
) -> Steps[Certificate]:
    content = {
        "request_type": "read_state",
        "paths": [list(path) for path in paths],
        **_whose(caller),
    }
    _, envelope = sign(content, caller.identity)
    path = f"/api/v2/canister/{to_text(effective)}/read_state"
    answer = yield from _post(caller, path, envelope, deadline, fresh, limits)
    match _cbor_map(answer, "the state's answer"):
        case {"certificate": bytes(data)}:
            return certificate.parse(data, caller.root_key, effective)
    raise MalformedError(f"{caller.url} gave a malformed answer to a read of its state")


def _request_status(
    caller: Caller, request_id: bytes, effective: bytes, deadline: float, misread: int
) -> Steps[Certificate]:
    limits = replace(caller.limits, patience=_WAITING_PATIENCE * caller.limits.patience)
    paths = [[b"request_status", request_id]]
    return _read_state(caller, paths, effective, deadline, limits, misread > 0)


def _hand_over(
    caller: Caller, effective: bytes, method: str, envelope: bytes, deadline: float, hold: bool
) -> Steps[Certificate | None]:
    """Hands a call over; the certificate when the network already has the outcome."""
    until = min(deadline, time.monotonic() + EXPIRY_SECONDS / 2)
    place = f"canister/{to_text(effective)}/call"
    try:
        if hold and caller.synchronous:
            path = f"/api/v3/{place}"
            answer = yield from send(caller.url, path, envelope, until, caller.limits)
            if answer.status not in (404, 405):
                return _taken(caller, answer, method, effective)
            caller.synchronous = False
        path = f"/api/v2/{place}"
        answer = yield from send(caller.url, path, envelope, until, caller.limits)
    except NetworkError as error:
        if error.maybe_sent:
            error.hint = (
                f"It is not known whether '{method}' was taken: look with `icgpt status` before "
                "trying again."
            )
        raise
    return _taken(caller, answer, method, effective)


def _taken(caller: Caller, answer: Answer, method: str, effective: bytes) -> Certificate | None:
    if answer.status == 202:
        return None
    if answer.status != 200:
        raise _http_error(caller.url, answer)
    match _cbor_map(answer, "the call's answer"):
        case {"certificate": bytes(data)}:
            return certificate.parse(data, caller.root_key, effective)
        case {"reject_code": int(code), "reject_message": str(text), **rest}:
            raise RejectedError(text, code, str(rest.get("error_code") or ""), method)
    raise MalformedError(f"{caller.url} gave a malformed answer to a call")


# --- Answers


def _until_it_makes_sense(once: Callable[[bool], Steps[T]], deadline: float) -> Steps[T]:
    """The result of `once`, which is taken again while what came was damaged."""
    backoff = Backoff()
    misread = 0
    while True:
        try:
            return (yield from once(misread > 0))
        except (VerificationError, MalformedError):
            misread += 1
            pause = backoff.next()
            if misread == _MISREADS or time.monotonic() + pause > deadline:
                raise
        yield Pause(pause)


def _read_query(
    response: dict[str, Any], url: str, method: str
) -> tuple[bytes, dict[str, Any], RejectedError | None]:
    """The reply, what of the answer is signed, and the error that it means."""
    match response:
        case {"status": "replied", "reply": {"arg": bytes(reply)}}:
            return reply, {"status": "replied", "reply": {"arg": reply}}, None
        case {"status": "rejected", "reject_code": int(code), "reject_message": str(text)}:
            signed = {"status": "rejected", "reject_code": code, "reject_message": text}
            error_code = response.get("error_code")
            if isinstance(error_code, str):
                signed["error_code"] = error_code
            return b"", signed, RejectedError(text, code, str(error_code or ""), method)
    raise MalformedError(f"{url} gave a malformed answer to a query")


def _verify_query(
    caller: Caller,
    signed: dict[str, Any],
    signatures: Any,
    request_id: bytes,
    effective: bytes,
    deadline: float,
) -> Steps[None]:
    """Every signature of the answer must hold, under a certified node key."""
    if not isinstance(signatures, list) or not signatures:
        raise VerificationError(f"{caller.url} gave an unsigned answer to a query")
    for entry in signatures[:_MAX_SIGNATURES]:
        match entry:
            case {"timestamp": int(stamp), "signature": bytes(sig), "identity": bytes(node)}:
                certificate.check_age(stamp)
                message = {**signed, "timestamp": stamp, "request_id": request_id}
                key = yield from _node_key(caller, effective, node, deadline)
                _verify_ed25519(key, sig, b"\x0bic-response" + hash_of_map(message))
            case _:
                raise VerificationError("a malformed signature on a query's answer")


def _node_key(caller: Caller, effective: bytes, node: bytes, deadline: float) -> Steps[bytes]:
    keys = caller.node_keys.get(effective)
    if keys is None or node not in keys:
        left = deadline - time.monotonic()
        cert = yield from read_state(caller, [[b"subnet"]], effective, left)
        place = (b"subnet", cert.subnet_id, b"node")
        keys = {}
        for one in cert.labels(*place):
            if (key := cert.lookup(*place, one, b"public_key")) is not None:
                keys[one] = key
        # A new dictionary each time: threads that share the caller see the old one or the new.
        kept = list(caller.node_keys.items())[1 - _MAX_KEYED_SUBNETS :]
        caller.node_keys = {**dict(kept), effective: keys}
    if node not in keys:
        raise VerificationError("a query was answered by a node outside the canister's subnet")
    return keys[node]


def _verify_ed25519(der: bytes, signature: bytes, message: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(der) != 44 or not der.startswith(_ED25519_PREFIX):
        raise VerificationError("a node's key is no Ed25519 key")
    try:
        Ed25519PublicKey.from_public_bytes(der[12:]).verify(signature, message)
    except InvalidSignature as error:
        raise VerificationError("the signature on a query's answer does not hold") from error


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
            maybe_sent=True,
        )
    return False, b""


def _cbor_map(answer: Answer, what: str) -> dict[str, Any]:
    decoded = certificate.decode_cbor(answer.body, what)
    if not isinstance(decoded, dict):
        raise MalformedError(f"{what} is malformed")
    return decoded


def _http_error(url: str, answer: Answer) -> IcgptError:
    if answer.status == 400 and "canister_not_found" in answer.text:
        # Mainnet's gateways know which canisters there are, and say so instead of the subnet.
        return no_such_canister(url)
    return http_error(url, answer)

"""Calls that can be proven later: the request, and the subnet's certificate of its reply.

A request's id is the hash of what was asked, of whom and by whom, and the subnet keeps the reply
under that id in its certified state for some minutes. Read together with the hash of the canister's
module, it shows in one certificate what the canister answered, and which code it ran at that time.
Specification: https://internetcomputer.org/docs/references/ic-interface-spec#certification
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from icgpt import certificate, protocol
from icgpt.certificate import Certificate
from icgpt.errors import CallTimeoutError, NetworkError, VerificationError
from icgpt.protocol import Caller
from icgpt.request_id import hash_of_map
from icgpt.steps import Pause, Steps

_PAUSE_SECONDS: Final = 0.2  # until a node that lags behind has the reply, too
_NOT_FOUND: Final = "answered 404"


@dataclass(frozen=True)
class Shown:
    """What the evidence of a call shows."""

    reply: bytes
    module_hash: bytes
    installed_ns: int | None
    """When that module was installed; None where the network does not certify it."""
    time_ns: int
    """When the subnet signed."""


@dataclass(frozen=True)
class CallEvidence:
    """An update call that was answered."""

    arg: bytes
    sender: bytes
    ingress_expiry: int
    nonce: bytes
    certificate: bytes

    def check(self, canister: bytes, method: str, root_key: bytes) -> Shown:
        """What this canister answered to this method; VerificationError unless it is proven."""
        content = {
            "request_type": "call",
            "canister_id": canister,
            "method_name": method,
            "arg": self.arg,
            "sender": self.sender,
            "ingress_expiry": self.ingress_expiry,
            "nonce": self.nonce,
        }
        proof = certificate.parse(self.certificate, root_key, canister, fresh=False)
        reply = _reply(proof, hash_of_map(content))
        module = proof.lookup(b"canister", canister, b"module_hash")
        if reply is None or module is None:
            raise VerificationError(f"the certificate does not show this call of '{method}'")
        return Shown(reply, module, _installed(proof, canister), proof.time_ns)


def certified_call(
    caller: Caller, canister: bytes, method: str, arg: bytes
) -> Steps[tuple[bytes, CallEvidence]]:
    """The reply of an update call, and what proves it. Methods declared as queries work, too."""
    content = protocol.call_content(caller, canister, method, arg)
    reply = yield from protocol.carry_out(caller, content, canister)
    request_id = hash_of_map(content)
    about = [b"canister", canister]
    paths = [
        [b"request_status", request_id],
        [*about, b"module_hash"],
        [*about, b"last_install_timestamp"],
    ]
    deadline = time.monotonic() + caller.limits.query
    while True:
        try:
            proof = yield from protocol.read_state(caller, paths, canister)
        except NetworkError as error:
            # A network that does not certify this refuses the whole of the question.
            if len(paths) < 3 or _NOT_FOUND not in error.message:
                raise
            paths.pop()
            continue
        if _reply(proof, request_id) == reply:
            break
        if time.monotonic() + _PAUSE_SECONDS > deadline:
            raise CallTimeoutError(
                f"'{method}' was answered, but no certificate of that could be had",
                "The network's nodes may lag behind. Try again.",
            )
        yield Pause(_PAUSE_SECONDS)
    evidence = CallEvidence(
        arg, content["sender"], content["ingress_expiry"], content["nonce"], proof.data
    )
    return reply, evidence


def _reply(proof: Certificate, request_id: bytes) -> bytes | None:
    place = (b"request_status", request_id)
    if proof.lookup(*place, b"status") != b"replied":
        return None
    return proof.lookup(*place, b"reply")


def _installed(proof: Certificate, canister: bytes) -> int | None:
    try:
        stamp = proof.lookup(b"canister", canister, b"last_install_timestamp")
    except certificate.PrunedError:
        return None
    return None if stamp is None else certificate.read_leb(stamp)

"""A small Internet Computer, whose faults a test can choose.

It signs certificates and query answers like the real one, with keys made from fixed bytes. `faults`
holds functions that look at a request's path and may answer in its place, or spoil the answer.
With `delegation` a subnet answers that the root key delegates to, as on mainnet.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from loopback_server import LoopbackServer, Quiet
from py_arkworks_bls12381 import G1Point, G2Point, Scalar

from icgpt.certificate import DOMAIN, KEY_PREFIX, root_hash
from icgpt.principal import from_text, self_authenticating
from icgpt.request_id import hash_of_map

CANISTER = (1).to_bytes(8, "big") + b"\x01\x01"


def leb(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def tree(content: Any) -> list[Any]:
    """A hash tree of nested dicts and bytes."""
    if isinstance(content, bytes):
        return [3, content]
    nodes = [[2, label, tree(content[label])] for label in sorted(content)]
    while len(nodes) > 1:
        nodes = [
            [1, *nodes[i : i + 2]] if i + 1 < len(nodes) else nodes[i]
            for i in range(0, len(nodes), 2)
        ]
    return nodes[0] if nodes else [0]


@dataclass
class Signer:
    """A BLS key."""

    secret: int

    @property
    def key(self) -> bytes:
        point = G2Point() * Scalar.from_be_bytes(self.secret.to_bytes(32, "big"))
        return KEY_PREFIX + bytes(point.to_compressed_bytes())

    def certify(
        self,
        content: dict[bytes, Any],
        delegation: dict[str, Any] | None = None,
        at: float | None = None,
    ) -> bytes:
        stamp = int((time.time() if at is None else at) * 1e9)
        plain = tree({**content, b"time": leb(stamp)})
        point = G1Point.hash_to_curve(b"\x0dic-state-root" + root_hash(plain), DOMAIN)
        signed = point * Scalar.from_be_bytes(self.secret.to_bytes(32, "big"))
        body = {"tree": plain, "signature": bytes(signed.to_compressed_bytes())}
        if delegation is not None:
            body["delegation"] = delegation
        return cbor2.dumps(cbor2.CBORTag(55799, body))


ROOT = Signer(0x1234567)
SUBNET = Signer(0x89ABCDEF)


def delegate(low: bytes, high: bytes, sharded: bool = False) -> dict[str, Any]:
    """The root's delegation to SUBNET for canisters from `low` to `high`."""
    subnet_id = self_authenticating(SUBNET.key)
    ranges = cbor2.dumps([[low, high]])
    if sharded:
        content: dict[bytes, Any] = {
            b"subnet": {subnet_id: {b"public_key": SUBNET.key}},
            b"canister_ranges": {subnet_id: {low: ranges}},
        }
    else:
        content = {b"subnet": {subnet_id: {b"public_key": SUBNET.key, b"canister_ranges": ranges}}}
    return {"subnet_id": subnet_id, "certificate": ROOT.certify(content)}


@dataclass
class FakeNetwork(LoopbackServer):
    """Runs while its context lasts. `reply` makes the answers of all methods."""

    reply: Callable[[str, bytes], bytes | tuple[int, str, str]] = lambda method, arg: arg
    synchronous: bool = True
    polls: int = 0
    faults: list[Callable[[str, bytes], tuple[int, bytes] | None]] = field(default_factory=list)
    spoil: Callable[[str, bytes], bytes] = lambda path, body: body
    headers: dict[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.time
    delegation: dict[str, Any] | None = None
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    done: dict[bytes, Any] = field(default_factory=dict)
    connections: set[Any] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.node = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"node").digest())
        raw = self.node.public_key().public_bytes_raw()
        self.node_key = bytes.fromhex("302a300506032b6570032100") + raw
        self.node_id = self_authenticating(self.node_key)

    def __enter__(self) -> FakeNetwork:
        fake = self

        class Handler(Quiet, BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200, fake.spoil(self.path, cbor2.dumps({"root_key": ROOT.key})))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fake.connections.add(self.client_address)
                fake.requests.append((self.path, cbor2.loads(body)))
                for fault in fake.faults:
                    if (answer := fault(self.path, body)) is not None:
                        if answer[0] == 0:
                            self.close_connection = True
                            self.connection.shutdown(socket.SHUT_RDWR)
                            return
                        self.answer(*answer)
                        return
                status, answer_body = fake.handle(self.path, cbor2.loads(body))
                self.answer(status, fake.spoil(self.path, answer_body))

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in fake.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self.serve(Handler)
        return self

    def certify(self, content: dict[bytes, Any]) -> bytes:
        if self.delegation is None:
            return ROOT.certify(content, at=self.clock())
        return SUBNET.certify(content, self.delegation, at=self.clock())

    def handle(self, path: str, envelope: dict[str, Any]) -> tuple[int, bytes]:
        content = envelope["content"]
        _, _, version, _, effective, kind = path.split("/")
        request_id = hash_of_map({k: v for k, v in content.items() if v is not None})
        if kind == "call":
            if request_id not in self.done:
                self.done[request_id] = self.run(content)
            if version == "v3" and not self.synchronous:
                return 404, b"not found"
            if version == "v2" or self.polls:
                return 202, b""
            return 200, cbor2.dumps(
                {"status": "replied", "certificate": self.certify(self.status_of(request_id))}
            )
        if kind == "query":
            return 200, cbor2.dumps(self.query(content, request_id))
        first = bytes(content["paths"][0][0])
        if first == b"request_status":
            wanted = bytes(content["paths"][0][1])
            if self.polls:
                self.polls -= 1
                state: dict[bytes, Any] = {b"request_status": {wanted: {b"status": b"processing"}}}
            else:
                state = self.status_of(wanted)
        elif first == b"subnet":
            node = {self.node_id: {b"public_key": self.node_key}}
            signer = ROOT if self.delegation is None else SUBNET
            state = {b"subnet": {self_authenticating(signer.key): {b"node": node}}}
        else:
            canister = from_text(effective)
            state = {b"canister": {canister: {b"module_hash": b"\x07" * 32}}}
        return 200, cbor2.dumps({"certificate": self.certify(state)})

    def run(self, content: dict[str, Any]) -> dict[bytes, bytes]:
        answer = self.reply(content["method_name"], content["arg"])
        if isinstance(answer, bytes):
            return {b"status": b"replied", b"reply": answer}
        code, text, error_code = answer
        return {
            b"status": b"rejected",
            b"reject_code": leb(code),
            b"reject_message": text.encode(),
            b"error_code": error_code.encode(),
        }

    def status_of(self, request_id: bytes) -> dict[bytes, Any]:
        known = self.done.get(request_id)
        return {b"request_status": {request_id: known} if known else {}}

    def query(self, content: dict[str, Any], request_id: bytes) -> dict[str, Any]:
        answer = self.reply(content["method_name"], content["arg"])
        if isinstance(answer, bytes):
            out: dict[str, Any] = {"status": "replied", "reply": {"arg": answer}}
        else:
            code, text, error_code = answer
            out = {
                "status": "rejected",
                "reject_code": code,
                "reject_message": text,
                "error_code": error_code,
            }
        stamp = int(self.clock() * 1e9)
        signed = hash_of_map({**out, "timestamp": stamp, "request_id": request_id})
        signature = self.node.sign(b"\x0bic-response" + signed)
        entry = {"timestamp": stamp, "signature": signature, "identity": self.node_id}
        return {**out, "signatures": [entry]}

"""A raw client of the protocol, and a canister in text form, for the subnet's tests.

The client signs and sends what it is told to, right or wrong, and checks certificates with code
that shares nothing with the server's.
"""

from __future__ import annotations

import hashlib
import struct
import time
from dataclasses import dataclass, field
from typing import Any

import cbor2
import py_arkworks_bls12381 as bls
import requests
import wasmtime
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from icgpt.candid import NAT, PRINCIPAL, Opt, Record, decode, encode
from icgpt.principal import MANAGEMENT, self_authenticating, to_text
from icgpt.replica import management_types as types

ANONYMOUS = b"\x04"
MINUTE = 60 * 10**9

WAT = r"""
(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_caller_size" (func $caller_size (result i32)))
  (import "ic0" "msg_caller_copy" (func $caller_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reject" (func $reject (param i32 i32)))
  (import "ic0" "msg_reject_code" (func $reject_code (result i32)))
  (import "ic0" "msg_reject_msg_size" (func $reject_size (result i32)))
  (import "ic0" "msg_reject_msg_copy" (func $reject_copy (param i32 i32 i32)))
  (import "ic0" "msg_cycles_available128" (func $available (param i32)))
  (import "ic0" "msg_cycles_accept128" (func $accept (param i64 i64 i32)))
  (import "ic0" "canister_self_size" (func $self_size (result i32)))
  (import "ic0" "canister_self_copy" (func $self_copy (param i32 i32 i32)))
  (import "ic0" "call_new"
    (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_on_cleanup" (func $on_cleanup (param i32 i32)))
  (import "ic0" "call_data_append" (func $call_append (param i32 i32)))
  (import "ic0" "call_cycles_add128" (func $call_cycles (param i64 i64)))
  (import "ic0" "call_perform" (func $perform (result i32)))
  (import "ic0" "global_timer_set" (func $timer (param i64) (result i64)))
  (import "ic0" "time" (func $time (result i64)))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (import "ic0" "debug_print" (func $print (param i32 i32)))
  (import "ic0" "certified_data_set" (func $certify (param i32 i32)))
  (import "ic0" "data_certificate_size" (func $certificate_size (result i32)))
  (import "ic0" "data_certificate_copy" (func $certificate_copy (param i32 i32 i32)))
  (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
  (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
  (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
  (memory 80)
  (table funcref (elem $forward $refuse $trapping $cleaning))
  (data (i32.const 64) "boom!no, thanksdonechainself")

  (func $answer (param $at i32) (param $size i32)
    (call $append (local.get $at) (local.get $size)) (call $reply))
  (func $arg (result i32)
    (call $arg_copy (i32.const 1024) (i32.const 0) (call $arg_size))
    (call $arg_size))
  (func $count (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))

  (func $forward (param i32) (call $answer (i32.const 1024) (call $arg)))
  (func $refuse (param i32)
    (i32.store8 (i32.const 1024) (call $reject_code))
    (call $reject_copy (i32.const 1025) (i32.const 0) (call $reject_size))
    (call $answer (i32.const 1024) (i32.add (call $reject_size) (i32.const 1))))
  (func $trapping (param i32)
    (call $count) (call $trap (i32.const 64) (i32.const 5)))
  (func $cleaning (param i32)
    (i32.store (i32.const 4) (i32.add (i32.load (i32.const 4)) (i32.const 1))))

  ;; Begin the call that the argument describes: canister, method, cycles, payload.
  (func $begin (param $on_reply i32) (param $on_reject i32)
    (local $size i32) (local $callee i32) (local $method i32) (local $cycles i32)
    (local.set $size (call $arg))
    (local.set $callee (i32.load8_u (i32.const 1024)))
    (local.set $method (i32.add (i32.const 1025) (local.get $callee)))
    (local.set $cycles
      (i32.add (i32.add (local.get $method) (i32.const 1)) (i32.load8_u (local.get $method))))
    (call $call_new
      (i32.const 1025) (local.get $callee)
      (i32.add (local.get $method) (i32.const 1)) (i32.load8_u (local.get $method))
      (local.get $on_reply) (i32.const 0) (local.get $on_reject) (i32.const 0))
    (call $call_append
      (i32.add (local.get $cycles) (i32.const 8))
      (i32.sub (i32.add (i32.const 1016) (local.get $size)) (local.get $cycles)))
    (call $call_cycles (i64.const 0) (i64.load (local.get $cycles))))
  (func $send (if (call $perform) (then (call $trap (i32.const 64) (i32.const 5)))))

  (func (export "canister_update proxy")
    (call $begin (i32.const 0) (i32.const 1)) (call $send))
  (func (export "canister_update proxy_trap")
    (call $begin (i32.const 2) (i32.const 2))
    (call $on_cleanup (i32.const 3) (i32.const 0)) (call $send))
  (func (export "canister_update proxy_silent")
    (call $begin (i32.const 3) (i32.const 3)) (call $send))
  (func (export "canister_update chain")
    (drop (call $arg)) (call $count)
    (if (i32.eqz (i32.load (i32.const 1024)))
      (then (call $answer (i32.const 79) (i32.const 4)))
      (else
        (i32.store (i32.const 1024) (i32.sub (i32.load (i32.const 1024)) (i32.const 1)))
        (call $self_copy (i32.const 2048) (i32.const 0) (call $self_size))
        (call $call_new (i32.const 2048) (call $self_size) (i32.const 83) (i32.const 5)
          (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
        (call $call_append (i32.const 1024) (i32.const 4))
        (call $send))))
  (func (export "canister_update accept")
    (call $available (i32.const 1024))
    (call $accept (i64.const 0)
      (i64.div_u (i64.load (i32.const 1024)) (i64.const 2)) (i32.const 1024))
    (call $answer (i32.const 1024) (i32.const 16)))

  (func (export "canister_update inc") (call $count) (call $answer (i32.const 0) (i32.const 4)))
  (func (export "canister_query get") (call $answer (i32.const 0) (i32.const 4)))
  (func (export "canister_query cleaned") (call $answer (i32.const 4) (i32.const 4)))
  (func (export "canister_query query_inc")
    (call $count) (call $answer (i32.const 0) (i32.const 4)))
  (func (export "canister_query whoami")
    (call $caller_copy (i32.const 1024) (i32.const 0) (call $caller_size))
    (call $answer (i32.const 1024) (call $caller_size)))
  (func (export "canister_update boom")
    (call $count) (call $trap (i32.const 64) (i32.const 5)))
  (func (export "canister_update reject")
    (call $count) (call $reject (i32.const 69) (i32.const 10)))
  (func (export "canister_query reject_query") (call $reject (i32.const 69) (i32.const 10)))
  (func (export "canister_update silent") (call $count))
  (func (export "canister_update size")
    (i32.store (i32.const 1024) (call $arg_size)) (call $answer (i32.const 1024) (i32.const 4)))
  (func (export "canister_update print")
    (call $print (i32.const 1024) (call $arg)) (call $answer (i32.const 0) (i32.const 0)))
  (func (export "canister_update work") (local $n i64)
    (drop (call $arg)) (local.set $n (i64.load (i32.const 1024)))
    (loop $again
      (local.set $n (i64.sub (local.get $n) (i64.const 1)))
      (br_if $again (i64.gt_s (local.get $n) (i64.const 0))))
    (call $count) (call $answer (i32.const 0) (i32.const 4)))
  (func (export "canister_update timer")
    (drop (call $arg))
    (drop (call $timer (i64.add (call $time) (i64.load (i32.const 1024)))))
    (call $answer (i32.const 0) (i32.const 4)))
  (func (export "canister_global_timer") (call $count))
  (func (export "canister_update certify")
    (call $certify (i32.const 1024) (call $arg)) (call $answer (i32.const 0) (i32.const 0)))
  (func (export "canister_query certificate")
    (call $certificate_copy (i32.const 1024) (i32.const 0) (call $certificate_size))
    (call $answer (i32.const 1024) (call $certificate_size)))
  (func (export "canister_init") (drop (call $arg))
    (if (i32.ge_u (call $arg_size) (i32.const 4))
      (then (i32.store (i32.const 0) (i32.load (i32.const 1024))))))
  (func (export "canister_pre_upgrade")
    (drop (call $stable_grow (i64.const 1)))
    (call $stable_write (i64.const 0) (i64.const 0) (i64.const 8)))
  (func (export "canister_post_upgrade")
    (call $stable_read (i64.const 0) (i64.const 0) (i64.const 8)) (call $count))
)
"""
INSPECTING = r"""
(module
  (import "ic0" "msg_method_name_size" (func $size (result i32)))
  (import "ic0" "accept_message" (func $accept))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (func (export "canister_inspect_message")
    (if (i32.eq (call $size) (i32.const 4)) (then (call $accept))))
  (func (export "canister_update good") (call $reply))
  (func (export "canister_update another") (call $reply)))
"""
BEATING = r"""
(module
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (func (export "canister_heartbeat")
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
  (func (export "canister_query get")
    (call $append (i32.const 0) (i32.const 4)) (call $reply)))
"""
# `inc` and `get` answer the Candid value of a counter that starts at 7 : nat32.
COUNTER_SERVICE = (
    "service : { inc : () -> (nat32); get : () -> (nat32) query; boom : () -> (nat32); }"
)
COUNTER = rf"""
(module
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (memory 1)
  (data (i32.const 0) "DIDL\00\01\79\07\00\00\00boom!")
  (func $answer (call $append (i32.const 0) (i32.const 11)) (call $reply))
  (func (export "canister_update inc")
    (i32.store8 (i32.const 7) (i32.add (i32.load8_u (i32.const 7)) (i32.const 1)))
    (call $answer))
  (func (export "canister_query get") (call $answer))
  (func (export "canister_update boom") (call $trap (i32.const 11) (i32.const 5)))
  (@custom "icp:public candid:service" "{COUNTER_SERVICE}"))
"""


def wasm(text: str = WAT) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def number(data: bytes) -> int:
    return int(struct.unpack("<I", data)[0])


# --- hashing and keys, written from the specification


def leb(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def hash_of(value: Any) -> bytes:
    if isinstance(value, dict):
        pairs = [hash_of(k) + hash_of(v) for k, v in value.items()]
        return hashlib.sha256(b"".join(sorted(pairs))).digest()
    if isinstance(value, list):
        return hashlib.sha256(b"".join(map(hash_of, value))).digest()
    if isinstance(value, int):
        value = leb(value)
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).digest()


class Ed25519:
    def __init__(self, seed: int = 0) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.der = self.key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def principal(self) -> bytes:
        return self_authenticating(self.der)

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message)


class Ecdsa(Ed25519):
    def __init__(self, curve: ec.EllipticCurve) -> None:
        self.ec_key = ec.derive_private_key(7, curve)
        self.der = self.ec_key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, message: bytes) -> bytes:
        signature = self.ec_key.sign(message, ec.ECDSA(hashes.SHA256()))
        r, s = utils.decode_dss_signature(signature)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def delegate(
    signer: Ed25519, to: Ed25519, expiration: int, targets: Any = None, **more: Any
) -> dict[str, Any]:
    delegation = {"pubkey": to.der, "expiration": expiration, **more}
    if targets is not None:
        delegation["targets"] = targets
    message = b"\x1aic-request-auth-delegation" + hash_of(delegation)
    return {"delegation": delegation, "signature": signer.sign(message)}


# --- certificates


def root_hash(tree: list[Any]) -> bytes:
    def separated(name: str, *parts: bytes) -> bytes:
        text = f"ic-hashtree-{name}".encode()
        return hashlib.sha256(bytes([len(text)]) + text + b"".join(parts)).digest()

    match tree:
        case [0]:
            return separated("empty")
        case [1, left, right]:
            return separated("fork", root_hash(left), root_hash(right))
        case [2, label, child]:
            return separated("labeled", label, root_hash(child))
        case [3, value]:
            return separated("leaf", value)
        case [4, digest]:
            return bytes(digest)
    raise AssertionError(tree)


def lookup(tree: list[Any], *path: bytes) -> bytes | None:
    """Return the value at a path; None where it is proven absent; fail where it is unknown."""
    if not path:
        assert tree[0] == 3, tree
        return bytes(tree[1])
    before: list[Any] | None = None
    for node in flat(tree):
        if node[0] == 2 and node[1] == path[0]:
            return lookup(node[2], *path[1:])
        if node[0] == 2 and node[1] > path[0]:
            assert before is None or before[0] == 2, "pruned"
            return None
        before = node
    assert before is None or before[0] == 2, "pruned"
    return None


def flat(tree: list[Any]) -> list[list[Any]]:
    if tree[0] == 1:
        return flat(tree[1]) + flat(tree[2])
    return [] if tree[0] == 0 else [tree]


def verified(certificate: bytes, root_key: bytes) -> list[Any]:
    """Check the certificate's signature and return its tree."""
    document = cbor2.loads(certificate)
    point = bls.G1Point.from_compressed_bytes(document["signature"])
    key = bls.G2Point.from_compressed_bytes(root_key[37:])
    message = b"\x0dic-state-root" + root_hash(document["tree"])
    dst = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
    hashed = bls.G1Point.hash_to_curve(message, dst)
    assert bls.GT.pairing(point, bls.G2Point()) == bls.GT.pairing(hashed, key)
    return list(document["tree"])


# --- the client


@dataclass
class Raw:
    """Sends requests; every field of an envelope may be overridden."""

    url: str
    root_key: bytes
    key: Ed25519 | None = field(default_factory=Ed25519)
    chain: list[dict[str, Any]] | None = None
    signer: Ed25519 | None = None  # of the requests, where the key has delegated
    http: requests.Session = field(default_factory=requests.Session)

    @property
    def sender(self) -> bytes:
        return self.key.principal if self.key else ANONYMOUS

    def content(self, kind: str, **fields: Any) -> dict[str, Any]:
        expiry = time.time_ns() + 4 * MINUTE
        content = {"request_type": kind, "sender": self.sender, "ingress_expiry": expiry}
        return {**content, **fields}

    def envelope(self, content: dict[str, Any]) -> dict[str, Any]:
        envelope: dict[str, Any] = {"content": content}
        if self.key is not None:
            signer = self.signer or self.key
            envelope["sender_pubkey"] = self.key.der
            envelope["sender_sig"] = signer.sign(b"\x0aic-request" + hash_of(content))
            if self.chain is not None:
                envelope["sender_delegation"] = self.chain
        return envelope

    def post(self, path: str, envelope: Any) -> requests.Response:
        body = envelope if isinstance(envelope, bytes) else cbor2.dumps(envelope)
        headers = {"Content-Type": "application/cbor"}
        return self.http.post(f"{self.url}/api/{path}", body, headers=headers, timeout=60)

    def call_content(self, canister: bytes, method: str, arg: bytes = b"") -> dict[str, Any]:
        nonce = hashlib.sha256(str(time.perf_counter_ns()).encode()).digest()[:16]
        return self.content("call", canister_id=canister, method_name=method, arg=arg, nonce=nonce)

    def call(
        self, canister: bytes, method: str, arg: bytes = b"", effective: bytes | None = None
    ) -> tuple[str, Any]:
        """Call and wait: ("replied", bytes), ("rejected", (code, text, error)) or ("refused", …)"""
        content = self.call_content(canister, method, arg)
        effective = canister if effective is None else effective
        response = self.post(f"v3/canister/{to_text(effective)}/call", self.envelope(content))
        assert response.status_code in (200, 202), (response.status_code, response.text)
        if response.status_code == 202:
            return self.poll(effective, hash_of(content))
        document = cbor2.loads(response.content)
        if document["status"] == "non_replicated_rejection":
            keys = ("reject_code", "reject_message", "error_code")
            return "refused", tuple(document[key] for key in keys)
        assert document["status"] == "replied"
        return self.outcome(verified(document["certificate"], self.root_key), hash_of(content))

    def poll(self, effective: bytes, request_id: bytes) -> tuple[str, Any]:
        while True:
            tree = self.read(effective, [b"request_status", request_id])
            outcome = self.outcome(tree, request_id)
            if outcome[0] in ("replied", "rejected", "done"):
                return outcome
            time.sleep(0.01)

    def outcome(self, tree: list[Any], request_id: bytes) -> tuple[str, Any]:
        status = lookup(tree, b"request_status", request_id, b"status")
        if status == b"replied":
            return "replied", lookup(tree, b"request_status", request_id, b"reply")
        if status == b"rejected":
            names = (b"reject_code", b"reject_message", b"error_code")
            parts = [lookup(tree, b"request_status", request_id, name) for name in names]
            assert parts[0] is not None
            assert parts[1] is not None
            assert parts[2] is not None
            return "rejected", (parts[0][0], parts[1].decode(), parts[2].decode())
        return (status or b"unknown").decode(), None

    def update(self, canister: bytes, method: str, arg: bytes = b"") -> bytes:
        """Call and return the reply."""
        status, value = self.call(canister, method, arg)
        assert status == "replied", value
        return bytes(value)

    def query_document(self, canister: bytes, method: str, arg: bytes = b"") -> dict[str, Any]:
        content = self.content("query", canister_id=canister, method_name=method, arg=arg)
        response = self.post(f"v2/canister/{to_text(canister)}/query", self.envelope(content))
        assert response.status_code == 200, (response.status_code, response.text)
        document: dict[str, Any] = cbor2.loads(response.content)
        (signature,) = document.pop("signatures")
        tree = self.read(canister, [b"subnet"])
        subnet = self_authenticating(self.root_key)
        node = signature["identity"]
        der = lookup(tree, b"subnet", subnet, b"node", node, b"public_key")
        assert der is not None
        assert self_authenticating(der) == node
        signed = {**document, "request_id": hash_of(content), "timestamp": signature["timestamp"]}
        key = Ed25519PublicKey.from_public_bytes(der[-32:])
        key.verify(signature["signature"], b"\x0bic-response" + hash_of(signed))
        return document

    def query(self, canister: bytes, method: str, arg: bytes = b"") -> bytes:
        document = self.query_document(canister, method, arg)
        assert document["status"] == "replied", document
        return bytes(document["reply"]["arg"])

    def read_response(self, effective: bytes, *paths: list[bytes]) -> requests.Response:
        content = self.content("read_state", paths=list(paths))
        path = f"v2/canister/{to_text(effective)}/read_state"
        return self.post(path, self.envelope(content))

    def read(self, effective: bytes, *paths: list[bytes]) -> list[Any]:
        response = self.read_response(effective, *paths)
        assert response.status_code == 200, (response.status_code, response.text)
        return verified(cbor2.loads(response.content)["certificate"], self.root_key)

    # --- management

    def manage(self, method: str, kind: Any, value: Any, canister: bytes) -> tuple[str, Any]:
        return self.call(MANAGEMENT, method, encode([kind], [value]), canister)

    def managed(self, method: str, kind: Any, value: Any, canister: bytes) -> bytes:
        status, reply = self.manage(method, kind, value, canister)
        assert status == "replied", reply
        return bytes(reply)

    def create(self, **fields: Any) -> bytes:
        kind = Record({"amount": Opt(NAT), "settings": Opt(types.SETTINGS)} | SPECIFIED)
        method = "provisional_create_canister_with_cycles"
        reply = self.managed(method, kind, fields, MANAGEMENT)
        return bytes(decode(reply, [types.CANISTER])[0]["canister_id"])

    def install(
        self, canister: bytes, module: bytes | None = None, arg: bytes = b"", mode: Any = "install"
    ) -> tuple[str, Any]:
        value = {
            "mode": {mode: None} if isinstance(mode, str) else mode,
            "canister_id": canister,
            "wasm_module": wasm() if module is None else module,
            "arg": arg,
        }
        return self.manage("install_code", types.INSTALL, value, canister)

    def new(self, module: bytes | None = None, **fields: Any) -> bytes:
        """Create a canister and install the test canister or another module."""
        canister = self.create(**fields)
        assert self.install(canister, module)[0] == "replied"
        return canister

    def status(self, canister: bytes) -> dict[str, Any]:
        value = {"canister_id": canister}
        reply = self.managed("canister_status", types.CANISTER, value, canister)
        status: dict[str, Any] = decode(reply, [types.STATUS])[0]
        return status

    def simple(self, method: str, canister: bytes) -> tuple[str, Any]:
        """Call a management method that takes a canister and nothing else."""
        return self.manage(method, types.CANISTER, {"canister_id": canister}, canister)

    def proxy(
        self,
        through: bytes,
        callee: bytes,
        method: str,
        arg: bytes = b"",
        cycles: int = 0,
        by: str = "proxy",
    ) -> tuple[str, Any]:
        """Let a canister make a call."""
        name = method.encode()
        head = bytes([len(callee)]) + callee + bytes([len(name)]) + name
        return self.call(through, by, head + struct.pack("<Q", cycles) + arg)


SPECIFIED: dict[str, Any] = {"specified_id": Opt(PRINCIPAL)}

"""Certificates of the Internet Computer: hash trees, threshold signatures, delegations.

A certificate is `{tree, signature, delegation?}` in CBOR. The tree's root hash is signed with BLS
(signature in G1, key in G2) by a subnet, whose key is certified by the root key in `delegation`,
together with the ranges of canister ids that it may speak for.
Specification: https://internetcomputer.org/docs/references/ic-interface-spec#certification
All bytes here are foreign: sizes and depths are capped, and everything that does not hold raises
VerificationError.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import cbor2
import py_arkworks_bls12381 as bls

from icgpt.errors import VerificationError
from icgpt.principal import self_authenticating, to_text

Tree: TypeAlias = list[Any]
Path: TypeAlias = Sequence[bytes]

MAX_CERTIFICATE_BYTES: Final = 8 << 20
MAX_TREE_DEPTH: Final = 300
MAX_TREE_NODES: Final = 1_000_000
MAX_AGE_SECONDS: Final = 300

MAINNET_ROOT_KEY: Final = bytes.fromhex(
    "308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100"
    "814c0e6ec71fab583b08bd81373c255c3c371b2e84863c98a4f1e08b74235d14"
    "fb5d9c0cd546d9685f913a0c0b2cc5341583bf4b4392e467db96d65b9bb4cb71"
    "7112f8472e0d5a4d14505ffd7484b01291091c5f87b98883463f98091a0baaae"
)
KEY_PREFIX: Final = MAINNET_ROOT_KEY[:37]
DOMAIN: Final = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"

EMPTY, FORK, LABELED, LEAF, PRUNED = range(5)


class PrunedError(VerificationError):
    """The certificate leaves out the part of the tree that was looked for."""


# --- Hash trees


def _domain(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


_EMPTY_HASH = hashlib.sha256(_domain("ic-hashtree-empty")).digest()
_FORK_DOMAIN = _domain("ic-hashtree-fork")
_LABELED_DOMAIN = _domain("ic-hashtree-labeled")
_LEAF_DOMAIN = _domain("ic-hashtree-leaf")
_ROOT_DOMAIN = _domain("ic-state-root")


def root_hash(tree: Tree) -> bytes:
    """The hash of a tree; also checks that every node has the form that its tag demands."""
    # CBOR's shared references can make a small file a huge tree, so nodes are counted.
    return _hash(tree, 0, iter(range(MAX_TREE_NODES)))


def _hash(tree: Any, depth: int, budget: Iterator[int]) -> bytes:
    if depth > MAX_TREE_DEPTH or next(budget, None) is None:
        raise VerificationError("the certificate's tree is too large or nested too deeply")
    match tree:
        case [0]:
            return _EMPTY_HASH
        case [1, left, right]:
            halves = _hash(left, depth + 1, budget) + _hash(right, depth + 1, budget)
            return hashlib.sha256(_FORK_DOMAIN + halves).digest()
        case [2, bytes(label), below]:
            inner = _hash(below, depth + 1, budget)
            return hashlib.sha256(_LABELED_DOMAIN + label + inner).digest()
        case [3, bytes(value)]:
            return hashlib.sha256(_LEAF_DOMAIN + value).digest()
        case [4, bytes(pruned)] if len(pruned) == 32:
            return pruned
    raise VerificationError("the certificate's tree has a malformed node")


def _children(tree: Tree) -> list[Tree]:
    """The labeled and pruned nodes directly below, from left to right."""
    found: list[Tree] = []
    todo = [tree]
    while todo:
        node = todo.pop()
        if node[0] == FORK:
            todo += [node[2], node[1]]
        elif node[0] != EMPTY:
            found.append(node)
    return found


def find(tree: Tree, path: Path) -> Tree | None:
    """The subtree at `path`; None when it is proven absent, PrunedError when it was left out."""
    for label in path:
        gap_pruned = False
        found: Tree | None = None
        for node in _children(tree):
            if node[0] == PRUNED:
                gap_pruned = True
            elif node[0] == LABELED and node[1] == label:
                found = node[2]
                break
            elif node[0] == LABELED and node[1] < label:
                gap_pruned = False
            elif node[0] == LABELED:
                break  # past the place; what was pruned before decides
        if found is None:
            if gap_pruned:
                raise PrunedError(f"the certificate leaves out {_show(path)}")
            return None
        tree = found
    if tree[0] == PRUNED:
        raise PrunedError(f"the certificate leaves out {_show(path)}")
    return tree


def _show(path: Path) -> str:
    return "/" + "/".join(p.decode() if p.isascii() and p else p.hex() for p in path)


# --- Signatures


def bls_key(der: bytes) -> bytes:
    """The 96 bytes of a BLS key in its DER wrapping."""
    if len(der) != len(KEY_PREFIX) + 96 or not der.startswith(KEY_PREFIX):
        raise VerificationError("a key that is no BLS12-381 key")
    return der[len(KEY_PREFIX) :]


def verify_bls(der_key: bytes, signature: bytes, message: bytes) -> None:
    """Raises VerificationError unless `signature` of `message` holds under `der_key`."""
    raw = bls_key(der_key)
    try:
        key = bls.G2Point.from_compressed_bytes(raw)
        point = bls.G1Point.from_compressed_bytes(signature)
        hashed = bls.G1Point.hash_to_curve(message, DOMAIN)
        if key == bls.G2Point.identity():
            raise VerificationError("the key is the point at infinity")
        holds = bls.GT.pairing_check([point, hashed], [-bls.G2Point(), key])
    except (ValueError, TypeError) as error:
        raise VerificationError(f"a malformed key or signature: {error}") from error
    if not holds:
        raise VerificationError("the certificate's signature does not hold")


# --- Certificates


@dataclass(frozen=True)
class Certificate:
    """A certificate whose signature held when it was read."""

    tree: Tree
    subnet_id: bytes
    time_ns: int
    data: bytes
    """The certificate as it came."""

    def lookup(self, *path: bytes) -> bytes | None:
        """The value at `path`; None when it is absent."""
        node = find(self.tree, path)
        if node is None:
            return None
        if node[0] != LEAF:
            raise VerificationError(f"{_show(path)} is no value in the certificate")
        return bytes(node[1])

    def labels(self, *path: bytes) -> list[bytes]:
        """The labels directly below `path` that the certificate shows."""
        node = find(self.tree, path)
        return [] if node is None else [c[1] for c in _children(node) if c[0] == LABELED]


def parse(
    data: bytes,
    root_key: bytes,
    canister_id: bytes | None = None,
    now: float | None = None,
    *,
    fresh: bool = True,
) -> Certificate:
    """Reads and verifies a certificate.

    Args:
        data: the certificate in CBOR.
        root_key: DER of the network's root key.
        canister_id: when given and not empty, a delegated subnet must be allowed to speak for it.
        now: seconds since 1970; the certificate may be five minutes off it. None is the clock.
        fresh: False for a certificate that was kept, of whatever time.
    """
    tree, signature, delegation = _unpack(data)
    if delegation is None:
        key, subnet_id = root_key, self_authenticating(root_key)
    else:
        key, subnet_id, ranges = _verify_delegation(delegation, root_key)
        if canister_id and not any(low <= canister_id <= high for low, high in ranges):
            raise VerificationError(
                f"the certificate's subnet may not speak for canister {to_text(canister_id)}"
            )
    verify_bls(key, signature, _ROOT_DOMAIN + root_hash(tree))
    stamp = find(tree, [b"time"])
    if stamp is None or stamp[0] != LEAF:
        raise VerificationError("the certificate has no time")
    certificate = Certificate(tree, subnet_id, read_leb(stamp[1]), data)
    if fresh:
        check_age(certificate.time_ns, now)
    return certificate


def check_age(time_ns: int, now: float | None = None) -> None:
    """Raises unless `time_ns` is within five minutes of now."""
    age = (time.time() if now is None else now) - time_ns / 1e9
    if abs(age) > MAX_AGE_SECONDS:
        word = "old" if age > 0 else "ahead of this machine's clock"
        raise VerificationError(
            f"the answer is {abs(age):.0f} seconds {word}; at most {MAX_AGE_SECONDS} are allowed",
            "Check this machine's clock. If it is right, someone may be replaying old answers.",
        )


def decode_cbor(data: bytes, what: str) -> Any:
    """CBOR from the network; any fault in it is a VerificationError."""
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise VerificationError(f"{what} has {len(data):,} bytes, more than anyone may send")
    try:
        return cbor2.loads(data)
    except (cbor2.CBORDecodeError, RecursionError, ValueError, TypeError, ArithmeticError) as error:
        raise VerificationError(f"{what} is not valid CBOR: {error}") from error


def read_leb(data: bytes) -> int:
    """An unsigned LEB128 number that fills `data` exactly."""
    value = 0
    if not data or len(data) > 19 or data[-1] & 0x80:
        raise VerificationError("a malformed number in the certificate")
    for position, byte in enumerate(data):
        if position < len(data) - 1 and not byte & 0x80:
            raise VerificationError("a malformed number in the certificate")
        value |= (byte & 0x7F) << (7 * position)
    return value


def _unpack(data: bytes) -> tuple[Tree, bytes, dict[str, Any] | None]:
    match decode_cbor(data, "the certificate"):
        case {"tree": list(tree), "signature": bytes(signature), **rest}:
            delegation = rest.get("delegation")
            if delegation is None or isinstance(delegation, dict):
                return tree, signature, delegation
    raise VerificationError("the certificate lacks its tree or signature")


_Delegated: TypeAlias = tuple[bytes, bytes, list[tuple[bytes, bytes]]]
_verified: OrderedDict[bytes, _Delegated] = OrderedDict()
_VERIFIED_MAX = 16  # a client talks to few subnets; each entry saves a pairing per answer
_verified_lock = threading.Lock()


def _verify_delegation(delegation: dict[str, Any], root_key: bytes) -> _Delegated:
    """Key, id and canister ranges of the subnet that the root key delegates to."""
    match delegation:
        case {"subnet_id": bytes(subnet_id), "certificate": bytes(inner)}:
            pass
        case _:
            raise VerificationError("a malformed delegation")
    tag = hashlib.sha256(root_key + subnet_id + inner).digest()
    with _verified_lock:
        if tag in _verified:
            _verified.move_to_end(tag)
            return _verified[tag]
    tree, signature, further = _unpack(inner)
    if further is not None:
        raise VerificationError("a delegation may not be delegated again")
    verify_bls(root_key, signature, _ROOT_DOMAIN + root_hash(tree))
    leaf = find(tree, [b"subnet", subnet_id, b"public_key"])
    if leaf is None or leaf[0] != LEAF:
        raise VerificationError("the delegation has no key for its subnet")
    result = (bytes(leaf[1]), subnet_id, _ranges(tree, subnet_id))
    with _verified_lock:
        _verified[tag] = result
        while len(_verified) > _VERIFIED_MAX:
            _verified.popitem(last=False)
    return result


def _ranges(tree: Tree, subnet_id: bytes) -> list[tuple[bytes, bytes]]:
    """Canister ranges of a subnet, from the newer sharded place and the older single leaf."""
    leaves: list[bytes] = []
    try:
        sharded = find(tree, [b"canister_ranges", subnet_id])
    except PrunedError:
        sharded = None
    if sharded is not None:
        for child in _children(sharded):
            if child[0] == LABELED and child[2][0] == LEAF:
                leaves.append(child[2][1])
    try:
        single = find(tree, [b"subnet", subnet_id, b"canister_ranges"])
    except PrunedError:
        single = None
    if single is not None and single[0] == LEAF:
        leaves.append(single[1])
    ranges: list[tuple[bytes, bytes]] = []
    for leaf in leaves:
        decoded = decode_cbor(leaf, "a list of canister ranges")
        if not isinstance(decoded, list):
            raise VerificationError("a malformed list of canister ranges")
        for pair in decoded:
            match pair:
                case [bytes(low), bytes(high)]:
                    ranges.append((low, high))
                case _:
                    raise VerificationError("a malformed list of canister ranges")
    return ranges

"""Certified state: hash trees, their pruning to asked paths, and the subnet's signature.

Trees are immutable and know their digest, so a snapshot costs nothing and a change rebuilds one
path. `labeled` makes a level of a tree at once; `insert` and `remove` keep a level of labels of
equal length (request ids) as a crit-bit tree. Signatures are BLS12-381 with signatures in G1.
See https://internetcomputer.org/docs/references/ic-interface-spec#certification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from py_arkworks_bls12381 import G1Point, G2Point, Scalar

from icgpt import principal
from icgpt.replica.files import read_or_create_secret

SELF_DESCRIBED = b"\xd9\xd9\xf7"
_DST = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
_ROOT_KEY_PREFIX = bytes.fromhex(
    "308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100"
)
_NODE_KEY_PREFIX = bytes.fromhex("302a300506032b6570032100")


def _separator(name: str) -> bytes:
    return bytes([len(name)]) + name.encode()


_EMPTY, _FORK, _LABELED, _LEAF = (
    _separator(f"ic-hashtree-{name}") for name in ("empty", "fork", "labeled", "leaf")
)


class Tree:
    """A hash tree; `first` and `last` are the outermost labels of this level, where it has any."""

    __slots__ = ("digest", "first", "last")
    digest: bytes
    first: bytes
    last: bytes

    def plain(self) -> list[Any]:
        """Return the tree as it goes into CBOR."""
        return [0]


class Empty(Tree):
    """No labels at all."""

    __slots__ = ()

    def __init__(self) -> None:
        self.digest = hashlib.sha256(_EMPTY).digest()


class Leaf(Tree):
    """A value."""

    __slots__ = ("value",)

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.digest = hashlib.sha256(_LEAF + value).digest()

    def plain(self) -> list[Any]:
        """As [3, value]."""
        return [3, self.value]


class Labeled(Tree):
    """A named subtree."""

    __slots__ = ("child",)

    def __init__(self, label: bytes, child: Tree) -> None:
        self.first = self.last = label
        self.child = child
        self.digest = hashlib.sha256(_LABELED + label + child.digest).digest()

    def plain(self) -> list[Any]:
        """As [2, label, subtree]."""
        return [2, self.first, self.child.plain()]


class Fork(Tree):
    """Two trees side by side, the labels of the left one all smaller."""

    __slots__ = ("left", "right")

    def __init__(self, left: Tree, right: Tree) -> None:
        self.left, self.right = left, right
        self.first, self.last = left.first, right.last
        self.digest = hashlib.sha256(_FORK + left.digest + right.digest).digest()

    def plain(self) -> list[Any]:
        """As [1, left, right]."""
        return [1, self.left.plain(), self.right.plain()]


class Pruned(Tree):
    """A subtree that was left out; its digest keeps the root's unchanged."""

    __slots__ = ()

    def __init__(self, tree: Tree) -> None:
        self.digest = tree.digest
        if not isinstance(tree, Empty | Leaf | Deferred):
            self.first, self.last = tree.first, tree.last

    def plain(self) -> list[Any]:
        """As [4, digest]."""
        return [4, self.digest]


class Deferred(Tree):
    """A subtree of which only the digest is kept; it is made again when it is asked for."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Tree]) -> None:
        self.make = make
        self.digest = make().digest

    def plain(self) -> list[Any]:
        """As the subtree itself."""
        return self.make().plain()


EMPTY = Empty()
Content = Mapping[bytes, "Tree | bytes | Content"]


def labeled(content: Content) -> Tree:
    """Build a balanced tree of named values, subtrees and nested contents."""
    nodes: list[Tree] = []
    for label in sorted(content):
        child = content[label]
        if isinstance(child, bytes):
            child = Leaf(child)
        elif not isinstance(child, Tree):
            child = labeled(child)
        nodes.append(Labeled(label, child))
    while len(nodes) > 1:
        pairs: list[Tree] = [Fork(a, b) for a, b in zip(nodes[::2], nodes[1::2], strict=False)]
        nodes = pairs + nodes[len(pairs) * 2 :]
    return nodes[0] if nodes else EMPTY


def _split_bit(a: bytes, b: bytes) -> int:
    """Return the number of leading bits that two labels of equal length share."""
    difference = int.from_bytes(a, "big") ^ int.from_bytes(b, "big")
    return len(a) * 8 - difference.bit_length()


def insert(tree: Tree, label: bytes, child: Tree) -> Tree:
    """Add or replace one label of a crit-bit level."""
    new = Labeled(label, child)
    if isinstance(tree, Empty):
        return new
    shared = min(_split_bit(label, tree.first), _split_bit(label, tree.last))
    if isinstance(tree, Labeled) and shared == len(label) * 8:
        return new
    if isinstance(tree, Fork) and shared >= _split_bit(tree.first, tree.last):
        if _goes_left(tree, label):
            return Fork(insert(tree.left, label, child), tree.right)
        return Fork(tree.left, insert(tree.right, label, child))
    return Fork(new, tree) if label < tree.first else Fork(tree, new)


def _goes_left(tree: Fork, label: bytes) -> bool:
    bit = _split_bit(tree.first, tree.last)
    return not label[bit // 8] >> (7 - bit % 8) & 1


def remove(tree: Tree, label: bytes) -> Tree:
    """Take one label out of a crit-bit level, if it is there."""
    if isinstance(tree, Labeled) and tree.first == label:
        return EMPTY
    if isinstance(tree, Fork):
        if label <= tree.left.last:
            left = remove(tree.left, label)
            return tree.right if left is EMPTY else Fork(left, tree.right)
        right = remove(tree.right, label)
        return tree.left if right is EMPTY else Fork(tree.left, right)
    return tree


# What to keep of a level: a label with what to keep below it, or None for its bare name.
_Keep = dict[bytes, "dict[bytes, Any] | None"]
_ALL: dict[bytes, Any] = {b"\x00whole subtree": None}


def prune(tree: Tree, paths: Iterable[Sequence[bytes]]) -> Tree:
    """Return the tree with nothing left but the paths, and proof of absence for missing ones."""
    wanted: dict[bytes, Any] = {}
    for path in paths:
        level = wanted
        for index, label in enumerate(path):
            if level.get(label) is _ALL:
                break
            if index == len(path) - 1:
                level[label] = _ALL
            else:
                level = level.setdefault(label, {})
        if not path:
            return tree
    return _prune(tree, wanted)


def _prune(tree: Tree, wanted: dict[bytes, Any]) -> Tree:
    if isinstance(tree, Deferred):
        tree = tree.make()
    if wanted is _ALL or isinstance(tree, Empty | Leaf | Pruned):
        return tree
    keep: _Keep = {}
    for label, below in wanted.items():
        found = _neighbours(tree, label)
        if label in found:
            keep[label] = below
        else:
            for neighbour in found:
                keep.setdefault(neighbour, None)
    return _cut(tree, keep, sorted(keep))


def _neighbours(tree: Tree, label: bytes) -> list[bytes]:
    """Return the label itself if it is in this level, else those just before and after it."""
    before: list[bytes] = []
    after: list[bytes] = []
    while isinstance(tree, Fork):
        if label <= tree.left.last:
            after, tree = [tree.right.first], tree.left
        elif label >= tree.right.first:
            before, tree = [tree.left.last], tree.right
        else:
            return [tree.left.last, tree.right.first]
    if label == tree.first:
        return [label]
    return [*before, tree.first] if label > tree.first else [tree.first, *after]


def _cut(tree: Tree, keep: _Keep, labels: list[bytes]) -> Tree:
    inside = [label for label in labels if tree.first <= label <= tree.last]
    if not inside:
        return Pruned(tree)
    if isinstance(tree, Fork):
        return Fork(_cut(tree.left, keep, inside), _cut(tree.right, keep, inside))
    if isinstance(tree, Labeled):
        below = keep[tree.first]
        child = Pruned(tree.child) if below is None else _prune(tree.child, below)
        return Labeled(tree.first, child)
    return tree


def cbor(value: Any) -> bytes:
    """Encode as self-described CBOR, as the platform does."""
    return SELF_DESCRIBED + cbor2.dumps(value)


@dataclass(frozen=True)
class Keys:
    """The keys of a local network of one subnet with one node, all derived from one secret."""

    secret: Scalar
    node: Ed25519PrivateKey
    root_key: bytes  # DER
    node_key: bytes  # DER

    @classmethod
    def open(cls, file: Path) -> Keys:
        """Read the secret from a file that only its owner may read; create it when missing."""
        seed = read_or_create_secret(file, 32)
        secret = Scalar.from_be_bytes_mod_order(hashlib.sha512(b"icgpt root" + seed).digest())
        node = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"icgpt node" + seed).digest())
        root = bytes((G2Point() * secret).to_compressed_bytes())
        node_key = _NODE_KEY_PREFIX + node.public_key().public_bytes_raw()
        return cls(secret, node, _ROOT_KEY_PREFIX + root, node_key)

    @property
    def subnet_id(self) -> bytes:
        """The principal of the subnet."""
        return principal.self_authenticating(self.root_key)

    @property
    def node_id(self) -> bytes:
        """The principal of the node."""
        return principal.self_authenticating(self.node_key)

    def sign_root(self, digest: bytes) -> bytes:
        """Sign the digest of a state tree."""
        point = G1Point.hash_to_curve(_separator("ic-state-root") + digest, _DST)
        return bytes((point * self.secret).to_compressed_bytes())

    def sign_response(self, digest: bytes) -> bytes:
        """Sign the hash of a query response, as a node."""
        return self.node.sign(_separator("ic-response") + digest)


@dataclass(frozen=True)
class Signed:
    """A state tree with its signature; gives certificates for any of its paths."""

    tree: Tree
    signature: bytes

    def certificate(self, paths: Iterable[Sequence[bytes]]) -> bytes:
        """Return the CBOR certificate that shows the paths and the time."""
        tree = prune(self.tree, [*paths, (b"time",)])
        return cbor({"tree": tree.plain(), "signature": self.signature})

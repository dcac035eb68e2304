"""Hash trees and their pruning, the history's part of the tree, and the strict CBOR reader."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replica_kit import lookup, root_hash, verified

from icgpt.replica import cbor, certification
from icgpt.replica.certification import EMPTY, Keys, Signed, Tree, insert, labeled, prune, remove
from icgpt.replica.history import MAX_REPLY_BYTES, History
from icgpt.replica.messages import Reject
from icgpt.replica.records import Entry

CONTENT = {
    b"canister": {
        b"\x01": {b"controllers": b"c", b"module_hash": b"m", b"metadata": {b"did": b"d"}},
        b"\x02": {b"controllers": b"c"},
        b"\x05": {b"controllers": b"c"},
    },
    b"empty": {},
    b"time": b"now",
}


def test_the_example_of_the_specification() -> None:
    """The test's own hashing is right, and ours is the same."""
    left = [1, [1, [2, b"x", [3, b"hello"]], [0]], [2, b"y", [3, b"world"]]]
    right = [1, [2, b"c", [0]], [2, b"d", [3, b"morning"]]]
    tree = [1, [1, [2, b"a", left], [2, b"b", [3, b"good"]]], right]
    expected = "eb5c5b2195e62d996b84c9bcc8259d19a83786a2f59e0878cec84c811f669aa0"
    assert root_hash(tree).hex() == expected
    ours = labeled(CONTENT)
    assert root_hash(ours.plain()) == ours.digest


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((b"time",), b"now"),
        ((b"canister", b"\x01", b"metadata", b"did"), b"d"),
        ((b"canister", b"\x02", b"controllers"), b"c"),
        ((b"canister", b"\x02", b"module_hash"), None),
        ((b"canister", b"\x03", b"module_hash"), None),
        ((b"canister", b"\x00", b"module_hash"), None),
        ((b"canister", b"\x09"), None),
        ((b"empty", b"x"), None),
        ((b"nothing",), None),
        ((b"zoo",), None),
        ((b"a",), None),
    ],
)
def test_pruned_trees_keep_the_root_and_show_the_path(
    path: tuple[bytes, ...], value: bytes | None
) -> None:
    tree = labeled(CONTENT)
    pruned = prune(tree, [path]).plain()
    assert root_hash(pruned) == tree.digest
    assert lookup(pruned, *path) == value
    other = (b"canister", b"\x01", b"controllers")
    if path[0] != b"canister" or path[1] != b"\x01":
        with pytest.raises(AssertionError):
            lookup(pruned, *other)
    assert lookup(prune(tree, [path, other]).plain(), *other) == b"c"


def test_a_path_to_an_inner_node_shows_all_below() -> None:
    tree = labeled(CONTENT)
    for paths in (
        [(b"canister",)],
        [(b"canister",), (b"canister", b"\x01", b"controllers")],
        [(b"canister", b"\x01", b"controllers"), (b"canister",)],
        [()],
    ):
        pruned = prune(tree, paths).plain()
        assert root_hash(pruned) == tree.digest
        assert lookup(pruned, b"canister", b"\x01", b"metadata", b"did") == b"d"
        assert lookup(pruned, b"canister", b"\x05", b"controllers") == b"c"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.booleans(), st.binary(min_size=2, max_size=2)), max_size=40),
    st.binary(min_size=2, max_size=2),
)
def test_crit_bit_levels(steps: list[tuple[bool, bytes]], asked: bytes) -> None:
    tree: Tree = EMPTY
    present: dict[bytes, bytes] = {}
    for add, label in steps:
        if add:
            value = bytes([len(present)])
            present[label] = value
            tree = insert(tree, label, certification.Leaf(value))
        else:
            present.pop(label, None)
            tree = remove(tree, label)
    assert {label: lookup(tree.plain(), label) for label in present} == present
    pruned = prune(tree, [(asked,)]).plain()
    assert root_hash(pruned) == tree.digest
    assert lookup(pruned, asked) == present.get(asked)
    # The order of changes leaves no trace.
    again: Tree = EMPTY
    for label in sorted(present, reverse=True):
        again = insert(again, label, certification.Leaf(present[label]))
    assert again.digest == tree.digest


def test_keys_are_kept_and_sign(tmp_path: Path) -> None:
    keys = Keys.open(tmp_path / "secret")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert Keys.open(tmp_path / "secret").root_key == keys.root_key
    assert Keys.open(tmp_path / "other").root_key != keys.root_key
    tree = labeled(CONTENT)
    certificate = Signed(tree, keys.sign_root(tree.digest)).certificate([(b"nothing",)])
    assert lookup(verified(certificate, keys.root_key), b"time") == b"now"
    document = cbor2.loads(certificate)
    document["tree"][1] = [4, bytes(32)]
    with pytest.raises(AssertionError):
        verified(cbor2.dumps(document), keys.root_key)
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        Keys.open(tmp_path / "secret")


def entry(number: int, expiry: int = 0) -> Entry:
    return Entry(number.to_bytes(32, "big"), b"\x04", b"\x01", expiry)


def test_the_history_of_requests() -> None:
    history = History()
    one, two = entry(1), entry(2)
    assert history.add(one)
    assert not history.add(entry(1))
    history.add(two)
    assert history.pending == 2
    history.processing(one.id)
    assert lookup(history.tree().plain(), one.id, b"status") == b"processing"
    history.finish(one.id, b"reply", None)
    history.finish(one.id, b"again", Reject(5, "late"))
    history.finish(two.id, b"", Reject(5, "no", "IC0503"))
    assert history.pending == 0
    plain = history.tree().plain()
    assert lookup(plain, one.id, b"reply") == b"reply"
    assert lookup(plain, two.id, b"reject_code") == b"\x05"
    assert lookup(plain, two.id, b"error_code") == b"IC0503"
    again = History(history.entries())
    assert again.tree().digest == history.tree().digest
    history.forget(10**18)
    assert history.get(one.id) is None
    assert history.tree() is EMPTY


def test_old_replies_are_given_up_when_there_are_too_many() -> None:
    history = History()
    reply = bytes(MAX_REPLY_BYTES // 4)
    for number in range(6):
        history.add(entry(number))
        history.finish(entry(number).id, reply, None)
    states = [history.get(entry(number).id) for number in range(6)]
    assert [state.status for state in states if state] == ["done"] * 2 + ["replied"] * 4


# --- CBOR


@pytest.mark.parametrize(
    "value", [{"a": [1, b"x", "y", None, True, False, -5]}, [], {}, 2**64 - 1, "é", b""]
)
def test_cbor_that_clients_write(value: Any) -> None:
    assert cbor.loads(cbor2.dumps(value)) == value
    assert cbor.loads(b"\xd9\xd9\xf7" + cbor2.dumps(value)) == value


def test_cbor_of_indefinite_length() -> None:
    assert cbor.loads(b"\xbf\x61a\x9f\x01\x02\xff\xff") == {"a": [1, 2]}
    assert cbor.loads(b"\x5f\x41x\x41y\xff") == b"xy"
    assert cbor.loads(b"\x7f\x61x\x61y\xff") == "xy"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x01",
        b"\x5a\xff\xff\xff\xff",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xff",
        b"\x82\xff\x01",
        b"\xbf\x61a\xff",
        b"\xbf\x61a\x01",
        b"\xa1\x01\x02",
        b"\xa2\x61a\x01\x61a\x02",
        b"\x61\xff",
        b"\x5f\x61x\xff",
        b"\x7f\xff\xff",
        b"\xc2\x41\x01",
        b"\xc4\x82\x1b\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xd8\x1d\x00",
        b"\xf9\x00\x00",
        b"\xfb" + bytes(8),
        b"\xf8\x20",
        b"\x1c",
        b"\x1f",
        b"\xdf",
        b"\x81" * 40 + b"\x01",
        b"\xd9\xd9\xf7" * 40 + b"\x01",
        b"\x9f" + b"\x00" * 60_000 + b"\xff",
    ],
)
def test_cbor_that_is_refused(data: bytes) -> None:
    with pytest.raises(cbor.CborError):
        cbor.loads(data)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.binary(max_size=80))
def test_cbor_of_any_bytes(data: bytes) -> None:
    try:
        cbor.loads(data)
    except cbor.CborError:
        return

"""Certificates hold when they are whole, and not when anything in them was changed."""

from __future__ import annotations

import cbor2
import pytest
from fake_network import CANISTER, ROOT, SUBNET, delegate, leb, tree
from hypothesis import given, settings
from hypothesis import strategies as st

from icgpt import certificate
from icgpt.certificate import MAINNET_ROOT_KEY, PrunedError, find, parse, read_leb, root_hash
from icgpt.errors import IcgptError, VerificationError

NOW = 1_800_000_000.0
STATE = {b"canister": {CANISTER: {b"module_hash": b"\x01" * 32}}, b"x": b"1"}
LOW, HIGH = bytes(10), b"\xff" * 10


def test_a_certificate_of_the_root_holds() -> None:
    cert = parse(ROOT.certify(STATE, at=NOW), ROOT.key, CANISTER, NOW)
    assert cert.lookup(b"canister", CANISTER, b"module_hash") == b"\x01" * 32
    assert cert.lookup(b"canister", CANISTER, b"other") is None
    assert cert.labels(b"canister") == [CANISTER]
    assert cert.time_ns == int(NOW * 1e9)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_delegated_subnet_speaks_for_its_canisters_only(sharded: bool) -> None:
    data = SUBNET.certify(STATE, delegate(LOW, HIGH, sharded), NOW)
    assert parse(data, ROOT.key, CANISTER, NOW).lookup(b"x") == b"1"
    outside = SUBNET.certify(STATE, delegate(b"\x02" * 10, HIGH, sharded), NOW)
    with pytest.raises(VerificationError, match="may not speak for"):
        parse(outside, ROOT.key, CANISTER, NOW)


def test_delegations_are_not_delegated_again() -> None:
    inner = SUBNET.certify(STATE, delegate(LOW, HIGH), NOW)
    twice = SUBNET.certify(STATE, {"subnet_id": b"s", "certificate": inner}, NOW)
    with pytest.raises(VerificationError, match="delegated again"):
        parse(twice, ROOT.key, CANISTER, NOW)


def test_wrong_keys_are_refused() -> None:
    data = ROOT.certify(STATE, at=NOW)
    for key in (SUBNET.key, MAINNET_ROOT_KEY):
        with pytest.raises(VerificationError, match="does not hold"):
            parse(data, key, CANISTER, NOW)
    infinity = certificate.KEY_PREFIX + b"\xc0" + bytes(95)
    for key in (b"", ROOT.key[:-1], b"\x00" * 133, infinity):
        with pytest.raises(VerificationError):
            parse(data, key, CANISTER, NOW)


@pytest.mark.parametrize("offset", [-301, 301])
def test_stale_answers_are_refused(offset: int) -> None:
    data = ROOT.certify(STATE, at=NOW)
    parse(data, ROOT.key, CANISTER, NOW + offset * 0.99)
    with pytest.raises(VerificationError, match="seconds"):
        parse(data, ROOT.key, CANISTER, NOW + offset)


def test_every_changed_byte_is_noticed() -> None:
    data = SUBNET.certify(STATE, delegate(LOW, HIGH), NOW)
    good = parse(data, ROOT.key, CANISTER, NOW)
    unnoticed = 0
    for place in range(0, len(data), 3):
        changed = bytearray(data)
        changed[place] ^= 0x01
        try:
            cert = parse(bytes(changed), ROOT.key, CANISTER, NOW)
        except VerificationError:
            continue
        # Names of CBOR keys that nobody reads, such as the tag in front, may change.
        assert cert == good
        unnoticed += 1
    assert unnoticed <= 2


def test_absent_and_left_out_are_told_apart() -> None:
    whole = tree({b"a": b"1", b"c": b"2", b"e": b"3"})
    assert find(whole, [b"b"]) is None
    pruned = [
        1,
        [4, root_hash(tree({b"a": b"1"}))],
        [1, [2, b"c", [3, b"2"]], [2, b"e", [3, b"3"]]],
    ]
    with pytest.raises(PrunedError):
        find(pruned, [b"b"])
    assert find(pruned, [b"d"]) is None
    assert find(pruned, [b"c"]) == [3, b"2"]
    with pytest.raises(PrunedError):
        find([2, b"c", [4, bytes(32)]], [b"c"])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        cbor2.dumps([]),
        cbor2.dumps({"tree": [0]}),
        cbor2.dumps({"tree": [9], "signature": b""}),
        cbor2.dumps({"tree": [4, b"short"], "signature": bytes(48)}),
        cbor2.dumps({"tree": [0], "signature": bytes(48)}),
        cbor2.dumps({"tree": [0], "signature": bytes(48), "delegation": {"subnet_id": 1}}),
        b"\xa2dtree" + b"\x81" * 100_000,
    ],
)
def test_malformed_certificates_are_refused(data: bytes) -> None:
    with pytest.raises(VerificationError):
        parse(data, ROOT.key, CANISTER, NOW)


def test_a_small_file_that_is_a_huge_tree_is_refused() -> None:
    node: list[object] = [0]
    for _ in range(60):
        node = [1, node, node]  # shared references: 2^60 nodes in a few hundred bytes
    data = cbor2.dumps({"tree": node, "signature": bytes(48)}, value_sharing=True)
    assert len(data) < 1000
    with pytest.raises(VerificationError, match="too large"):
        parse(data, ROOT.key, CANISTER, NOW)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_noise_never_does_more_than_fail(data: bytes) -> None:
    with pytest.raises(IcgptError):
        parse(data, ROOT.key, CANISTER, NOW)


@given(st.integers(min_value=0, max_value=2**64))
def test_numbers(number: int) -> None:
    assert read_leb(leb(number)) == number


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x00\x00", b"\xff" * 20])
def test_malformed_numbers(data: bytes) -> None:
    with pytest.raises(VerificationError):
        read_leb(data)


def test_the_mainnet_key_is_a_key_on_the_curve() -> None:
    from ic.constants import IC_ROOT_KEY
    from py_arkworks_bls12381 import G2Point

    assert MAINNET_ROOT_KEY == IC_ROOT_KEY
    point = G2Point.from_compressed_bytes(certificate.bls_key(MAINNET_ROOT_KEY))
    assert point.is_in_subgroup()

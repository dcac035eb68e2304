"""Candid and principals: against ic-py's own codec, round trips, subtyping, hostile bytes."""

from __future__ import annotations

import math
import random
from typing import Any

import ic.candid as other
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ic.principal import Principal

from icgpt import principal
from icgpt.candid import (
    BLOB,
    BOOL,
    EMPTY,
    FLOAT32,
    FLOAT64,
    INT,
    INT8,
    INT64,
    NAT,
    NAT8,
    NAT16,
    NAT32,
    NAT64,
    NULL,
    PRINCIPAL,
    RESERVED,
    TEXT,
    CandidError,
    Func,
    Opt,
    Record,
    Service,
    Type,
    Variant,
    Vec,
    decode,
    encode,
    field_id,
)

T = other.Types
USER = bytes(range(28)) + b"\x02"

# (our type, ic-py's type, our value, ic-py's value)
PAIRS: list[tuple[Type, Any, Any, Any]] = [
    (NULL, T.Null, None, None),
    (BOOL, T.Bool, True, True),
    (NAT, T.Nat, 10**30, 10**30),
    (INT, T.Int, -(10**30), -(10**30)),
    (INT, T.Int, 64, 64),
    (NAT8, T.Nat8, 255, 255),
    (NAT32, T.Nat32, 2**32 - 1, 2**32 - 1),
    (NAT64, T.Nat64, 2**64 - 1, 2**64 - 1),
    (INT8, T.Int8, -128, -128),
    (FLOAT64, T.Float64, 0.2, 0.2),
    (TEXT, T.Text, "what is the capital of France? ✓", "what is the capital of France? ✓"),
    (Opt(NAT), T.Opt(T.Nat), None, []),
    (Opt(NAT), T.Opt(T.Nat), 7, [7]),
    (BLOB, T.Vec(T.Nat8), b"\x00\x01\xff", [0, 1, 255]),
    (Vec(NAT32), T.Vec(T.Nat32), [1, 2, 50257], [1, 2, 50257]),
    (Vec(TEXT), T.Vec(T.Text), ["a", "b"], ["a", "b"]),
    (
        Record({"name": TEXT, "id": NAT64}),
        T.Record({"name": T.Text, "id": T.Nat64}),
        {"name": "x", "id": 3},
        {"name": "x", "id": 3},
    ),
    (
        Variant({"Ok": Vec(NAT32), "Err": TEXT}),
        T.Variant({"Ok": T.Vec(T.Nat32), "Err": T.Text}),
        {"Ok": [1, 2]},
        {"Ok": [1, 2]},
    ),
]


@pytest.mark.parametrize(("ours", "theirs", "value", "their_value"), PAIRS)
def test_the_same_bytes_as_ic_py(ours: Type, theirs: Any, value: Any, their_value: Any) -> None:
    data = other.encode([{"type": theirs, "value": their_value}])
    assert decode(data, [ours]) == [value]
    assert encode([ours], [value]) == data
    assert encode([], []) == other.encode([])


def test_ic_py_reads_what_we_write() -> None:
    kinds = [ours for ours, *_ in PAIRS]
    data = encode([*kinds, PRINCIPAL], [*(value for _, _, value, _ in PAIRS), USER])
    theirs = other.decode(data, [t for _, t, _, _ in PAIRS] + [T.Principal])
    for got, (_, _, _, expected) in zip(theirs, PAIRS, strict=False):
        assert got["value"] == expected
    assert theirs[-1]["value"].bytes == USER


def test_untyped_decoding_names_what_it_can() -> None:
    kind = Record({"settings": Opt(Record({"freezing": NAT})), "mode": Variant({"install": NULL})})
    data = encode([kind], [{"settings": {"freezing": 5}, "mode": {"install": None}}])
    named = decode(data, None, names=("settings", "mode", "install"))
    assert named == [{"settings": {field_id("freezing"): 5}, "mode": {"install": None}}]


def test_tuples_are_records_of_numbered_fields() -> None:
    pair = Record({0: TEXT, 1: NAT})
    data = encode([pair, pair], [("a", 1), {0: "b", 1: 2}])
    assert decode(data, [pair, pair]) == [{0: "a", 1: 1}, {0: "b", 1: 2}]


def test_a_record_may_have_grown_and_shrunk() -> None:
    old = Record({"a": NAT, "b": TEXT})
    new = Record({"a": INT, "c": Opt(Vec(TEXT)), "d": RESERVED, "e": NULL})
    data = encode([old, TEXT, Vec(old)], [{"a": 5, "b": "x"}, "extra", [{"a": 1, "b": ""}]])
    assert decode(data, [new]) == [{"a": 5, "c": None, "d": None, "e": None}]
    assert decode(encode([], []), [Opt(NAT), NULL, RESERVED]) == [None, None, None]


@pytest.mark.parametrize(
    ("sent", "value", "expected", "result"),
    [
        (NAT, 3, INT, 3),
        (NAT, 3, Opt(NAT), 3),
        (NAT, 3, Opt(TEXT), None),
        (Opt(NAT), 3, Opt(TEXT), None),
        (Opt(NAT), 3, Opt(INT), 3),
        (NULL, None, Opt(NAT), None),
        (RESERVED, None, Opt(NAT), None),
        (Opt(Opt(NAT)), 3, Opt(Opt(NAT)), 3),
        (Variant({"a": NULL, "b": NAT}), {"b": 1}, Opt(Variant({"a": NULL})), None),
        (Variant({"a": NULL}), {"a": None}, Variant({"a": NULL, "b": NAT}), {"a": None}),
        (BLOB, b"ab", Vec(Opt(NAT8)), [97, 98]),
        (Vec(NAT), [1, 2], Vec(RESERVED), [None, None]),
        (TEXT, "x", RESERVED, None),
    ],
)
def test_subtyping(sent: Type, value: Any, expected: Type, result: Any) -> None:
    data = encode([sent, TEXT], [value, "after"])
    assert decode(data, [expected, TEXT]) == [result, "after"]


@pytest.mark.parametrize(
    ("sent", "value", "expected"),
    [
        (INT, 3, NAT),
        (NAT32, 3, NAT64),
        (Opt(NAT), 3, NAT),
        (TEXT, "x", NULL),
        (Vec(TEXT), [], BLOB),
        (Record({}), {}, Record({"a": NAT})),
        (Variant({"a": NULL, "b": NAT}), {"a": None}, Variant({"a": NULL})),
        (NAT, 1, EMPTY),
        (PRINCIPAL, b"", Service()),
        (NAT, 1, Func()),
    ],
)
def test_what_is_no_subtype_is_refused(sent: Type, value: Any, expected: Type) -> None:
    with pytest.raises(CandidError):
        decode(encode([sent], [value]), [expected])
    with pytest.raises(CandidError, match="missing"):
        decode(encode([], []), [NAT])


def test_references_are_opaque() -> None:
    canister = b"\x01\x02"
    func = b"DIDL\x01\x6a\x00\x00\x01\x01\x01\x00\x01\x01\x02" + canister + b"\x03foo"
    assert decode(func, [Func()]) == [(canister, "foo")]
    assert decode(func, None) == [(canister, "foo")]
    service = b"DIDL\x01\x69\x00\x01\x00\x01\x02" + canister
    assert decode(service, [Service()]) == [canister]


def test_recursive_types_are_read_untyped() -> None:
    # type list = opt record { nat8; list }
    table = b"DIDL\x02\x6e\x01\x6c\x02\x00\x7b\x01\x00\x01\x00"
    assert decode(table + b"\x01\x05\x01\x06\x00", None) == [{0: 5, 1: {0: 6, 1: None}}]
    assert decode(table + b"\x01\x05\x00", [Opt(Record({0: NAT8}))]) == [{0: 5}]


HOSTILE = {
    "empty": b"",
    "wrong magic": b"DIDX\x00\x00",
    "no table": b"DIDL",
    "table of 2^60": b"DIDL" + b"\xff" * 8 + b"\x0f",
    "endless number": b"DIDL" + b"\x80" * 50,
    "reference past the table": b"DIDL\x01\x6e\x05\x01\x00\x00",
    "unknown primitive": b"DIDL\x00\x01\x60",
    "unknown opcode": b"DIDL\x01\x40\x00\x01\x00",
    "fields out of order": b"DIDL\x01\x6c\x02\x05\x7f\x04\x7f\x01\x00",
    "fields twice": b"DIDL\x01\x6c\x02\x05\x7f\x05\x7f\x01\x00",
    "text is no UTF-8": b"DIDL\x00\x01\x71\x02\xff\xff",
    "text too long": b"DIDL\x00\x01\x71\xff\xff\xff\xff\x0f",
    "bool of two": b"DIDL\x00\x01\x7e\x02",
    "opt of two": b"DIDL\x01\x6e\x7f\x01\x00\x02",
    "blob too long": b"DIDL\x01\x6d\x7b\x01\x00\xff\xff\xff\xff\xff\xff\x7f",
    "vec null bomb": b"DIDL\x01\x6d\x7f\x01\x00\xff\xff\xff\xff\xff\xff\x7f",
    "vec of empty records": b"DIDL\x02\x6d\x01\x6c\x00\x01\x00\x80\x80\x80\x80\x08",
    "record of itself": b"DIDL\x01\x6c\x01\x00\x00\x01\x00",
    "variant index": b"DIDL\x01\x6b\x01\x00\x7f\x01\x00\x01",
    "variant of none": b"DIDL\x01\x6b\x00\x01\x00\x00",
    "value of type empty": b"DIDL\x00\x01\x6f",
    "principal of 30 bytes": b"DIDL\x00\x01\x68\x01\x1e" + bytes(30),
    "opaque principal": b"DIDL\x00\x01\x68\x00",
    "bytes left over": b"DIDL\x00\x00\x00",
    "many arguments": b"DIDL\x00\xff\xff\x7f" + b"\x7f" * 100_000,
    "huge nat": b"DIDL\x00\x01\x7d" + b"\xff" * 10_000 + b"\x01",
}
DEEP = b"DIDL\x01\x6e\x00\x01\x00" + b"\x01" * 500 + b"\x00"
NESTED = b"DIDL\x03\x6d\x01\x6d\x02\x6d\x7f\x01\x00\x10" + b"\xff\xff\x7f" * 16


@pytest.mark.parametrize("data", [*HOSTILE.values(), DEEP, NESTED], ids=[*HOSTILE, "deep", "nest"])
def test_hostile_messages_are_refused(data: bytes) -> None:
    for types in (None, [], [Opt(RESERVED)], [RESERVED]):
        with pytest.raises(CandidError):
            decode(data, types)


def test_mutated_messages_raise_nothing_else() -> None:
    rng = random.Random(7)
    kind = Record({"a": Opt(Vec(TEXT)), "b": Variant({"x": BLOB, "y": NAT}), "c": PRINCIPAL})
    good = encode([kind, kind], [{"a": ["hi"], "b": {"x": b"12"}, "c": USER}] * 2)
    for _ in range(5_000):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.randrange(4, len(data) + 1)]
        for types in (None, [kind], [Opt(kind), kind]):
            try:
                decode(bytes(data), types)
            except CandidError:
                continue


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (NAT8, 256),
        (NAT8, -1),
        (NAT8, 1.0),
        (NAT, -1),
        (NAT, True),
        (NAT, "1"),
        (BOOL, 1),
        (TEXT, b"x"),
        (TEXT, "\ud800"),
        (NULL, 0),
        (EMPTY, None),
        (PRINCIPAL, bytes(30)),
        (PRINCIPAL, "aaaaa-aa"),
        (BLOB, "text"),
        (Vec(NAT32), [2**32]),
        (Vec(NAT32), [0.5]),
        (Vec(NAT32), np.array([-1])),
        (Vec(NAT16), 5),
        (Record({"a": NAT}), {}),
        (Record({"a": NAT}), {"a": 1, "b": 2}),
        (Record({"a": NAT}), 5),
        (Variant({"a": NULL}), {"b": None}),
        (Variant({"a": NULL}), {}),
        (Variant({"a": NULL}), "a"),
        (Func(), (b"", "x")),
    ],
)
def test_values_that_do_not_fit_are_refused(kind: Type, value: Any) -> None:
    with pytest.raises(CandidError):
        encode([kind], [value])


def test_numbers_from_numpy() -> None:
    ids = np.array([1, 50257], dtype=np.uint32)
    assert decode(encode([Vec(NAT32)], [ids]), [Vec(NAT32)]) == [[1, 50257]]
    assert decode(encode([Vec(NAT32)], [ids.astype(np.int64)]), [Vec(NAT32)]) == [[1, 50257]]
    floats = np.array([0.5, math.inf], dtype=np.float32)
    assert decode(encode([Vec(FLOAT32)], [floats]), [Vec(FLOAT32)]) == [[0.5, math.inf]]


def test_large_vectors_take_the_fast_path() -> None:
    # One value for the vector itself: the elements must not be counted, let alone looped over.
    blob = bytes(1_900_000)
    data = encode([BLOB], [blob])
    assert data == b"DIDL\x01\x6d\x7b\x01\x00\xe0\xfb\x73" + blob
    assert decode(data, [BLOB], max_values=1) == [blob]
    assert decode(data, None, max_values=1) == [blob]
    floats = list(np.linspace(0, 1, 50_257, dtype=np.float32).tolist())
    assert decode(encode([Vec(FLOAT32)], [floats]), [Vec(FLOAT32)], max_values=1) == [floats]


SCALARS: list[tuple[Type, st.SearchStrategy[Any]]] = [
    (NULL, st.none()),
    (BOOL, st.booleans()),
    (NAT, st.integers(0, 2**200)),
    (INT, st.integers(-(2**200), 2**200)),
    (NAT16, st.integers(0, 2**16 - 1)),
    (INT64, st.integers(-(2**63), 2**63 - 1)),
    (FLOAT64, st.floats(allow_nan=False)),
    (TEXT, st.text(st.characters(codec="utf-8"), max_size=8)),
    (PRINCIPAL, st.binary(max_size=29)),
    (BLOB, st.binary(max_size=8)),
]


def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    key = st.text("abcdef", min_size=1, max_size=3)
    # An option of an option can't tell "none" from "some none"; the value is None in both.
    plain = inner.filter(lambda pair: not isinstance(pair[0], Opt) and pair[0] != NULL)
    return st.one_of(
        plain.map(lambda p: (Opt(p[0]), st.one_of(st.none(), p[1]))),
        inner.filter(lambda p: p[0] != NAT8).map(lambda p: (Vec(p[0]), st.lists(p[1], max_size=3))),
        st.dictionaries(key, inner, max_size=3).map(
            lambda d: (
                Record({k: t for k, (t, _) in d.items()}),
                st.fixed_dictionaries({k: s for k, (_, s) in d.items()}),
            )
        ),
        st.dictionaries(key, inner, min_size=1, max_size=3).map(
            lambda d: (
                Variant({k: t for k, (t, _) in d.items()}),
                st.one_of(*(s.map(lambda v, k=k: {k: v}) for k, (_, s) in d.items())),
            )
        ),
    )


TYPED = st.recursive(st.sampled_from(SCALARS), grow, max_leaves=6)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_round_trips(data: st.DataObject) -> None:
    pairs = data.draw(st.lists(TYPED, max_size=3))
    types = [kind for kind, _ in pairs]
    values = [data.draw(strategy) for _, strategy in pairs]
    message = encode(types, values)
    assert decode(message, types) == values
    decode(message, None)
    decode(message, [RESERVED] * len(types))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=64))
def test_random_bytes(junk: bytes) -> None:
    for types in (None, [Opt(RESERVED)]):
        try:
            decode(b"DIDL" + junk, types)
        except CandidError:
            continue


# --- principals


@pytest.mark.parametrize("raw", [b"", b"\x04", USER, b"\xff\xff\xff\xff\xff\xe0\x00\x00\x01\x01"])
def test_principals_as_ic_py_writes_them(raw: bytes) -> None:
    assert principal.to_text(raw) == Principal(bytes=raw).to_str()
    assert principal.from_text(principal.to_text(raw)) == raw


def test_well_known_principals() -> None:
    assert principal.to_text(principal.ANONYMOUS) == "2vxsx-fae"
    assert principal.to_text(principal.MANAGEMENT) == "aaaaa-aa"
    assert principal.from_text("ryjl3-tyaaa-aaaaa-aaaba-cai") == bytes(7) + b"\x02\x01\x01"
    key = b"some DER"
    assert principal.self_authenticating(key) == Principal.self_authenticating(key).bytes


@pytest.mark.parametrize(
    "text",
    ["", "model", "2vxsx-fad", "2VXSX-FAE", "2vxsxfae", "2vxsx-fae-", "ß" * 9, "a" * 64, "aaaaa"],
)
def test_what_is_no_principal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a principal"):
        principal.from_text(text)
    with pytest.raises(ValueError, match="at most 29"):
        principal.to_text(bytes(30))

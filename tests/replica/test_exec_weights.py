"""The metering table against the platform's published one, and small modules reckoned by hand.

`published_weights.json` was transcribed from the platform's source, not from our table. Names
become opcodes through wasmtime's assembler, so that neither names nor numbers are ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime
from exec_support import Driver, wat

from icgpt.replica import wasm, weights

PUBLISHED = json.loads(Path(__file__).with_name("published_weights.json").read_text())
COSTS: dict[str, int] = PUBLISHED["costs"]

# What an operator needs behind its name; most need nothing.
IMMEDIATES = {
    "block": "end",
    "loop": "end",
    "if": "end",
    "br": "0",
    "br_if": "0",
    "br_table": "0 0",
    "call": "0",
    "return_call": "0",
    "call_indirect": "(type 0)",
    "return_call_indirect": "(type 0)",
    "local.get": "0",
    "local.set": "0",
    "local.tee": "0",
    "global.get": "0",
    "global.set": "0",
    "i32.const": "0",
    "i64.const": "0",
    "f32.const": "0",
    "f64.const": "0",
    "v128.const": "i64x2 0 0",
    "i8x16.shuffle": " ".join(["0"] * 16),
    "ref.null": "func",
    "ref.func": "0",
    "data.drop": "0",
    "elem.drop": "0",
    "memory.init": "0",
    "table.init": "0",
}


def assembled(instruction: str) -> bytes:
    """The bytes of one instruction, as the assembler writes it behind an `unreachable`."""
    code = bytes(
        wasmtime.wat2wasm(
            f"""(module (type (func)) (memory 1) (table 1 funcref) (global (mut i32) (i32.const 0))
            (elem func 0) (data "") (elem declare func 0)
            (func (type 0) (local i32) unreachable {instruction} unreachable))"""
        )
    )
    sections = wasm.parse(code)
    body = next(content for kind, content in sections.raw if kind == wasm.CODE)
    at = body.index(b"\x01\x01\x7f\x00") + 4  # one local, unreachable
    return body[at:]


def opcode(data: bytes) -> tuple[int, int]:
    """An instruction's prefix (0 for none) and number."""
    if data[0] not in (0xFC, 0xFD):
        return 0, data[0]
    number = shift = 0
    for byte in data[1:]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return data[0], number


def ours(prefix: int, number: int) -> int:
    tables = {0: weights.CURRENT.scalar, 0xFC: weights.CURRENT.bulk, 0xFD: weights.CURRENT.vector}
    return tables[prefix][number]


def instruction(name: str) -> str:
    if name in ("else", "end"):
        return "if else end" if name == "else" else "block end"
    immediates = IMMEDIATES.get(name, "")
    if name.endswith(("lane", "lane_s", "lane_u")):
        immediates = "0"
    return f"{name} {immediates}"


def published() -> Iterator[tuple[str, tuple[int, int]]]:
    for name in COSTS:
        data = assembled(instruction(name))
        yield name, opcode(data[2:] if name in ("else", "end") else data)


def test_every_published_weight_is_ours() -> None:
    wrong = {
        name: (COSTS[name], ours(*code)) for name, code in published() if ours(*code) != COSTS[name]
    }
    assert wrong == {}


def test_every_weight_of_ours_is_published() -> None:
    """What the platform's function does not name, and we accept, costs its default."""
    known = {code for _, code in published()}
    tables = (
        (0, weights.CURRENT.scalar),
        (0xFC, weights.CURRENT.bulk),
        (0xFD, weights.CURRENT.vector),
    )
    accepted = {
        (prefix, number)
        for prefix, table in tables
        for number, weight in enumerate(table)
        if weight != weights.UNKNOWN
    }
    typed_select = (0, 0x1C)
    prefixes = {(0, 0xFC), (0, 0xFD)}  # their numbers are weighed, they are not
    assert accepted - known == {typed_select} | prefixes
    assert known <= accepted
    assert ours(*typed_select) == PUBLISHED["default"]
    assert [ours(*prefix) for prefix in sorted(prefixes)] == [0, 0]


FUNCTION = '(func (export "canister_update f") {})'


@pytest.mark.parametrize(
    ("module", "cost"),
    [
        # entry 1; a round: get, const, sub, tee (4), br_if 2; five rounds; const and set before
        (
            FUNCTION.format(
                "(local $i i32) (local.set $i (i32.const 5))"
                "(loop $l (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"
            ),
            1 + 2 + 5 * 6,
        ),
        # an outer loop of three rounds round an inner one of four
        (
            FUNCTION.format(
                """(local $i i32) (local $j i32) (local.set $i (i32.const 3))
                (loop $o (local.set $j (i32.const 4))
                  (loop $n (br_if $n (local.tee $j (i32.sub (local.get $j) (i32.const 1)))))
                  (br_if $o (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"""
            ),
            1 + 2 + 3 * (2 + 4 * 6 + 6),
        ),
        # br_table takes the second way out: const, br_table 2, then const, drop
        (
            FUNCTION.format(
                "(block (block (br_table 0 1 (i32.const 1))) (nop) (nop))(drop (i32.const 0))"
            ),
            1 + 1 + 2 + 2,
        ),
        # a call with two arguments: const, const, call 5; entry 1, get, get, mul; drop
        (
            "(func $m (param i32 i32) (result i32) (i32.mul (local.get 0) (local.get 1)))"
            + FUNCTION.format("(drop (call $m (i32.const 2) (i32.const 3)))"),
            1 + 2 + 5 + (1 + 3) + 1,
        ),
        # call_indirect 10 and its index; return_call 3
        (
            "(table funcref (elem $a $b)) (type $t (func)) (func $a (return_call $b)) (func $b)"
            + FUNCTION.format("(call_indirect (type $t) (i32.const 0))"),
            1 + 1 + 10 + (1 + 3) + 1,
        ),
        # three constants, 100, and one for each byte; done twice in a loop of two rounds
        (
            FUNCTION.format(
                """(local $i i32) (local.set $i (i32.const 2))
                (loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 1000))
                  (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"""
            ),
            1 + 2 + 2 * (3 + 100 + 1000 + 6),
        ),
        (
            FUNCTION.format("(memory.copy (i32.const 64) (i32.const 0) (i32.const 4096))"),
            1 + 3 + 100 + 4096,
        ),
        # memory.init of 3 bytes, then data.drop 300
        (
            '(data $d "abc")'
            + FUNCTION.format(
                "(memory.init $d (i32.const 0) (i32.const 0) (i32.const 3)) (data.drop $d)"
            ),
            1 + 3 + 100 + 3 + 300,
        ),
        # load, load, dot 1, const, add 1, store and its address
        (
            FUNCTION.format(
                """(v128.store (i32.const 0) (i32x4.add (v128.const i64x2 0 0)
                  (i32x4.dot_i16x8_s (v128.load8x8_s (i32.const 0)) (v128.load (i32.const 16)))))"""
            ),
            1 + 1 + 1 + 2 + 2 + 1 + 1 + 1,
        ),
        # f32x4: two loads (4), mul 2, add 2 with a constant, div 10 with a constant, sqrt 5, drop
        (
            FUNCTION.format(
                """(drop (f32x4.sqrt (f32x4.div (f32x4.add (f32x4.mul (v128.load (i32.const 0))
                  (v128.load (i32.const 16))) (v128.const i64x2 1 1)) (v128.const i64x2 1 1))))"""
            ),
            1 + 4 + 2 + (1 + 2) + (1 + 10) + 5 + 1,
        ),
        # table.size 100, table.grow 300, table.get and table.set 5 each, table.fill 100 + elements
        (
            "(table $t 2 9 funcref) (elem declare func $f) (func $f)"
            + FUNCTION.format(
                """(drop (table.grow $t (ref.func $f) (i32.const 2))) (drop (table.size $t))
                (table.set $t (i32.const 0) (table.get $t (i32.const 1)))
                (table.fill $t (i32.const 0) (ref.null func) (i32.const 3))"""
            ),
            1 + (130 + 1 + 300 + 1) + (100 + 1) + (1 + 1 + 5 + 5) + (1 + 1 + 1 + 100 + 3),
        ),
    ],
)
def test_small_modules(tmp_path: Path, module: str, cost: int) -> None:
    driver = Driver(tmp_path)
    assert driver.install(wat(module)).trap is None
    outcome = driver.update("f")
    assert outcome.trap is None
    assert outcome.instructions == cost
    driver.canister.close()

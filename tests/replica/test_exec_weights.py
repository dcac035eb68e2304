"""The metering table against the platform's published one, and small modules reckoned by hand.

`published_weights.json` was transcribed from the platform's source, not from our table. Names
become opcodes through wasmtime's assembler, so that neither names nor numbers are ours.
"""

from __future__ import annotations

import json
import os
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
        # The int8 kernel's inner step, 8 products for 5: get, load8x8_s, const for an activation,
        # dot, add. Unrolled twice after a start of const; a loop of three rounds bumps the pointer
        # (get, const, add, set) and counts (get, const, sub, tee, br_if 2); store at the end.
        (
            FUNCTION.format(
                """(local $w i32) (local $n i32) (local $sum v128) (local.set $n (i32.const 3))
                (loop $l
                  (local.set $sum (i32x4.add (i32x4.add (local.get $sum)
                    (i32x4.dot_i16x8_s (v128.load8x8_s (local.get $w)) (v128.const i64x2 1 2)))
                    (i32x4.dot_i16x8_s (v128.load8x8_s offset=8 (local.get $w))
                      (v128.const i64x2 3 4))))
                  (local.set $w (i32.add (local.get $w) (i32.const 16)))
                  (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
                (v128.store (i32.const 64) (local.get $sum))"""
            ),
            1 + 2 + 3 * (1 + 5 + 5 + 1 + 4 + 4 + 2) + 3,
        ),
        # What costs more than 1 among vectors: shuffle 3, i16x8.shl 2, i32x4.mul 2, extmul 2,
        # f32x4.max 4, trunc_sat 2, i64x2.shr_s 3, each with its operands and a drop
        (
            FUNCTION.format(
                """(drop (i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23
                    (v128.const i64x2 1 2) (v128.const i64x2 3 4)))
                (drop (i16x8.shl (v128.const i64x2 1 2) (i32.const 3)))
                (drop (i32x4.mul (v128.const i64x2 1 2) (v128.const i64x2 3 4)))
                (drop (i32x4.extmul_low_i16x8_s (v128.const i64x2 1 2) (v128.const i64x2 3 4)))
                (drop (f32x4.max (v128.const i64x2 1 2) (v128.const i64x2 3 4)))
                (drop (i32x4.trunc_sat_f32x4_s (v128.const i64x2 1 2)))
                (drop (i64x2.shr_s (v128.const i64x2 1 2) (i32.const 3)))"""
            ),
            1 + (2 + 3) + (2 + 2) + (2 + 2) + (2 + 2) + (2 + 4) + (1 + 2) + (2 + 3) + 7,
        ),
        # And what costs 1: splat, extract_lane, narrow, bitselect, pmax, load and store of a lane
        (
            FUNCTION.format(
                """(drop (i32x4.extract_lane 0 (i32x4.splat (i32.const 3))))
                (drop (i16x8.narrow_i32x4_s (v128.const i64x2 1 2) (v128.const i64x2 3 4)))
                (drop (v128.bitselect (v128.const i64x2 1 2) (v128.const i64x2 3 4)
                  (v128.const i64x2 5 6)))
                (drop (f32x4.pmax (v128.const i64x2 1 2) (v128.const i64x2 3 4)))
                (v128.store32_lane 1 (i32.const 0)
                  (v128.load32_lane 1 (i32.const 0) (v128.const i64x2 1 2)))"""
            ),
            1 + (3 + 1) + (3 + 1) + (4 + 1) + (3 + 1) + 5,
        ),
        # An early way out of a loop: the block of the round that leaves is paid to its br_if.
        # A round: get, const, eq, br_if 2; then get, const, add, set, br 2; the third round leaves
        (
            FUNCTION.format(
                """(local $i i32)
                (block $out (loop $l
                  (br_if $out (i32.eq (local.get $i) (i32.const 2)))
                  (local.set $i (i32.add (local.get $i) (i32.const 1)))
                  (br $l)))"""
            ),
            1 + 3 * 5 + 2 * 6,
        ),
        # select, and an if without an else, not taken: const, const, const, select, drop; const, if
        (
            FUNCTION.format(
                """(drop (select (i32.const 1) (i32.const 2) (i32.const 0)))
                (if (i32.const 0) (then (drop (i32.const 7))))"""
            ),
            1 + 5 + 1 + 2,
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


@pytest.mark.skipif(
    not os.access("/proc/self/pagemap", os.R_OK), reason="the system doesn't tell what was touched"
)
def test_page_charges_come_on_top(tmp_path: Path) -> None:
    """One module reckoned by hand, code and pages together.

    A loop reads one number from each of five heap pages; a fill then writes the last two of them
    and one more. Of stable memory, a write goes across the border of two pages and a read is of one
    of them. A page costs 80,000 when first touched, as much again when first written, and 48,000
    for each written one after the message; code costs what it costs without pages.
    """
    page = weights.WASM_PAGE
    body = f"""(local $at i32)
        (loop $l
          (drop (i32.load offset={page} (local.get $at)))
          (local.set $at (i32.add (local.get $at) (i32.const {page})))
          (br_if $l (i32.lt_u (local.get $at) (i32.const {5 * page}))))
        (memory.fill (i32.const {4 * page}) (i32.const 1) (i32.const {2 * page + 1}))
        (drop (call $stable64_grow (i64.const 3)))
        (call $stable64_write (i64.const {page - 10}) (i64.const {4 * page}) (i64.const 20))
        (call $stable64_read (i64.const {4 * page}) (i64.const 3) (i64.const 5))"""
    module = wat(
        FUNCTION.format(body),
        "stable64_grow",
        "stable64_write",
        "stable64_read",
        memory='(memory (export "memory") 16)',
    )
    rounds = 5 * ((1 + 1 + 1) + 4 + (3 + 2))
    fill = 3 + 100 + 2 * page + 1
    stable = (1 + 5 + 1 + 100) + (3 + 5 + 20 + 20) + (3 + 5 + 20 + 5)
    code = 1 + rounds + fill + stable
    heap_pages = 6 * 80_000 + 3 * (80_000 + 48_000)  # pages 1 to 6; 4, 5 and 6 written
    stable_pages = 2 * (80_000 + 80_000 + 48_000)
    for release, pages in (
        (weights.CURRENT, heap_pages + stable_pages),
        (weights.WITHOUT_PAGES, 0),
    ):
        driver = Driver(tmp_path / release.name, release)
        assert driver.install(module).trap is None
        outcome = driver.update("f")
        assert outcome.trap is None
        assert outcome.page_instructions == pages
        assert outcome.instructions == code + pages
        driver.canister.close()

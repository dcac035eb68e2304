"""Instruction counts, reckoned by hand from the platform's table, and the limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from exec_support import Driver, one_function, trap_text, wat

from icgpt.replica import metering, wasm, weights
from icgpt.replica.engine import validate
from icgpt.replica.messages import Kind

Make = Callable[..., Driver]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Driver] = []

    def build(body: str, *imports: str, release: weights.Release = weights.WITHOUT_PAGES) -> Driver:
        driver = Driver(tmp_path / str(len(made)), release)
        made.append(driver)
        assert driver.install(wat(body, *imports)).trap is None
        return driver

    yield build
    for driver in made:
        driver.canister.close()


def update(body: str) -> str:
    return f'(func (export "canister_update f") {body})'


@pytest.mark.parametrize(
    ("body", "cost"),
    [
        ("", 1),  # function entry
        ("(drop (i32.const 1))", 3),
        ("(drop (i32.div_u (i32.const 6) (i32.const 3)))", 1 + 1 + 1 + 10 + 1),
        ("(drop (f32.add (f32.const 1) (f32.const 2)))", 1 + 1 + 1 + 2 + 1),
        ("(drop (f32.lt (f32.const 1) (f32.const 2)))", 1 + 1 + 1 + 3 + 1),
        ("(drop (i32.trunc_f32_s (f32.const 1)))", 1 + 1 + 20 + 1),
        ("(drop (f64.sqrt (f64.const 4)))", 1 + 1 + 8 + 1),
        ("(drop (memory.size))", 1 + 20 + 1),
        ("(drop (memory.grow (i32.const 1)))", 1 + 1 + 300 + 1),
        # if is 2; both branches are blocks of their own
        ("(if (i32.const 1) (then (nop)) (else (nop) (nop)))", 1 + 1 + 2 + 1),
        ("(if (i32.const 0) (then (nop)) (else (nop) (nop)))", 1 + 1 + 2 + 2),
        ("(block (br 0) (nop))", 1 + 2),
        ("(return) (nop)", 1 + 1),
        # 100 bytes: the operation's own 100, three constants, and one for each byte
        ("(memory.fill (i32.const 0) (i32.const 7) (i32.const 100))", 1 + 3 + 100 + 100),
        ("(memory.copy (i32.const 0) (i32.const 9) (i32.const 55))", 1 + 3 + 100 + 55),
        (
            "(drop (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 "
            "(v128.const i64x2 1 2) (v128.const i64x2 1 2)))",
            1 + 1 + 1 + 3 + 1,
        ),
        ("(drop (f32x4.div (v128.const i64x2 1 2) (v128.const i64x2 1 2)))", 1 + 2 + 10 + 1),
        ("(drop (i32x4.dot_i16x8_s (v128.const i64x2 1 2) (v128.const i64x2 1 2)))", 5),
    ],
)
def test_counts(make: Make, body: str, cost: int) -> None:
    assert make(update(body)).update("f").instructions == cost


def test_a_loop(make: Make) -> None:
    body = """(local $i i32)
      (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $l (i32.lt_u (local.get $i) (i32.const 10))))"""
    # each round: get, const, add, set, get, const, lt_u, br_if (2)
    assert make(update(body)).update("f").instructions == 1 + 10 * 9


def test_calls_and_globals(make: Make) -> None:
    body = """(global $g (mut i32) (i32.const 0)) (table funcref (elem $a))
      (func $a (global.set $g (i32.const 1)))"""
    driver = make(body + update("(call $a) (call_indirect (i32.const 0))"))
    assert driver.update("f").instructions == 1 + 5 + 1 + 10 + 2 * (1 + 1 + 2)


def test_system_calls_are_charged(make: Make) -> None:
    driver = make(
        update("(call $msg_reply_data_append (i32.const 0) (i32.const 20)) (call $msg_reply)"),
        "msg_reply_data_append",
        "msg_reply",
    )
    assert driver.update("f").instructions == 1 + 1 + 1 + 5 + (500 + 50 * 20) + 5 + 500


def test_stable_memory_is_charged(make: Make) -> None:
    driver = make(
        update(
            "(drop (call $stable64_grow (i64.const 1))) (drop (call $stable64_size))"
            "(call $stable64_write (i64.const 0) (i64.const 0) (i64.const 1000))"
            "(call $stable64_read (i64.const 0) (i64.const 0) (i64.const 300))"
        ),
        "stable64_grow",
        "stable64_size",
        "stable64_write",
        "stable64_read",
    )
    calls = (1 + 5 + 1 + 100) + (5 + 1) + (3 + 5 + 20 + 1000) + (3 + 5 + 20 + 300)
    assert driver.update("f").instructions == 1 + calls


def test_the_performance_counter_includes_its_block_and_itself(make: Make) -> None:
    driver = make(
        update(
            "(i64.store (i32.const 0) (call $performance_counter (i32.const 0)))"
            "(call $msg_reply_data_append (i32.const 0) (i32.const 8)) (call $msg_reply)"
        ),
        "performance_counter",
        "msg_reply_data_append",
        "msg_reply",
    )
    outcome = driver.update("f", context_instructions=9_999)
    block = 1 + (1 + 1 + 5 + 1) + (1 + 1 + 5) + 5  # the whole function is one block
    assert outcome.reply == (block + 200).to_bytes(8, "little")
    assert outcome.instructions == block + 200 + 500 + 50 * 8 + 500


def test_the_call_context_counter(make: Make) -> None:
    driver = make(
        update(
            "(i64.store (i32.const 0) (call $performance_counter (i32.const 1)))"
            "(call $msg_reply_data_append (i32.const 0) (i32.const 8)) (call $msg_reply)"
        ),
        "performance_counter",
        "msg_reply_data_append",
        "msg_reply",
    )
    first = driver.update("f").reply
    later = driver.update("f", context_instructions=1_000_000).reply
    assert first is not None
    assert later is not None
    assert int.from_bytes(later, "little") - int.from_bytes(first, "little") == 1_000_000


def limited(**limits: int) -> weights.Release:
    return replace(weights.WITHOUT_PAGES, limits=replace(weights.Limits(), **limits))


def test_a_message_stops_at_its_limit(make: Make) -> None:
    body = update("(loop (br 0))") + '(func (export "canister_query q") (loop (br 0)))'
    driver = make(body, release=limited(update=100_000, query=50_000))
    outcome = driver.update("f")
    assert "IC0522" in trap_text(outcome)
    assert "exceeded the limit of 100000 instructions" in trap_text(outcome)
    assert outcome.instructions == 100_000
    assert "limit of 50000 instructions" in trap_text(driver.query("q"))


def test_recursion_stops_at_the_limit(make: Make) -> None:
    driver = make("(func $r (call $r))" + update("(call $r)"), release=limited(update=10_000))
    assert "IC0522" in trap_text(driver.update("f"))


def test_charges_of_system_calls_count_against_the_limit(make: Make) -> None:
    body = update("(loop (drop (call $time)) (br 0))")
    driver = make(body, "time", release=limited(update=3_000_000))
    outcome = driver.update("f")
    assert "IC0522" in trap_text(outcome)
    assert outcome.instructions == 3_000_000


def test_a_last_charge_past_the_limit_fails(make: Make) -> None:
    body = update("(drop (call $time))")
    assert "IC0522" in trap_text(make(body, "time", release=limited(update=506)).update("f"))
    assert make(body, "time", release=limited(update=507)).update("f").trap is None


def test_bulk_operations_stop_at_the_limit_before_they_run(make: Make) -> None:
    body = update("(memory.fill (i32.const 0) (i32.const 1) (i32.const 60000))")
    assert "IC0522" in trap_text(make(body, release=limited(update=50_000)).update("f"))


def test_a_bulk_operation_longer_than_a_slice(make: Make) -> None:
    body = update("(memory.fill (i32.const 0) (i32.const 1) (i32.const -100))")
    text = trap_text(make(body).update("f"))
    assert "IC0522" in text
    assert "slice limit 2000000000" in text


def test_installing_has_a_limit_over_all_its_steps(make: Make) -> None:
    spin = "(local $i i32) (local.set $i (i32.const 1000))" + (
        "(loop (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if 0 (local.get $i)))"
    )
    code = wat(f'(func $s {spin}) (start $s) (func (export "canister_init") {spin})')
    once = 1 + 2 + 1000 * 7
    driver = make("", release=limited(install=2 * once))
    assert driver.install(code, mode="reinstall").instructions == 2 * once
    driver = make("", release=limited(install=2 * once - 10))
    assert "IC0522" in trap_text(driver.install(code, mode="reinstall"))


def test_inspection_has_its_own_limit(make: Make) -> None:
    body = '(func (export "canister_inspect_message") (loop (br 0)))'
    driver = make(body, release=limited(inspect=1_000))
    outcome = driver.run(Kind.INSPECT, method="x")
    assert "limit of 1000 instructions" in trap_text(outcome)


def _immediates(opcode: int) -> bytes:
    if opcode in (0x02, 0x03, 0x04):
        return b"\x40"
    layouts = {0x0E: b"\1\0\0", 0x11: b"\0\0", 0x13: b"\0\0", 0x1C: b"\1\x7f", 0xD0: b"\x70"}
    if opcode in layouts:
        return layouts[opcode]
    if opcode in (0x43, 0x44):
        return bytes(4 if opcode == 0x43 else 8)
    if 0x28 <= opcode <= 0x3E:
        return b"\0\0"
    single = (0x0C, 0x0D, 0x10, 0x12, *range(0x20, 0x27), 0x3F, 0x40, 0x41, 0x42, 0xD2)
    return b"\0" if opcode in single else b""


def _vector_immediates(opcode: int) -> bytes:
    if opcode <= 11 or opcode in (92, 93):
        return b"\0\0"
    if opcode in (12, 13):
        return bytes(16)
    if 21 <= opcode <= 34:
        return b"\0"
    return b"\0\0\0" if 84 <= opcode <= 91 else b""


def test_every_opcode_is_read_to_its_end() -> None:
    """Each opcode alone in a function, behind an `unreachable`, which makes operands needless."""
    release = weights.CURRENT
    bodies = [
        bytes([opcode]) + _immediates(opcode) + (b"\x0b" if opcode in (2, 3, 4) else b"")
        for opcode in range(256)
        if release.scalar[opcode] >= 0 and opcode not in (0x05, 0x0B, 0xFC, 0xFD)
    ]
    counts = (0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 1, 2, 1, 2, 1, 1, 1)
    bodies += [b"\xfc" + wasm.leb(i) + bytes(counts[i]) for i in range(18)]
    bodies += [
        b"\xfd" + wasm.leb(i) + _vector_immediates(i) for i in range(256) if release.vector[i] >= 0
    ]
    assert len(bodies) == 437
    functions = [b"\x01\x01\x7f\x00" + body + b"\x00\x0b" for body in bodies]
    count = wasm.leb(len(functions))
    code = wasm.HEADER + b"".join(
        wasm.section(kind, content)
        for kind, content in (
            (wasm.TYPE, b"\x01\x60\0\0"),
            (wasm.FUNCTION, count + bytes(len(functions))),
            (wasm.TABLE, b"\x01\x70\0\x01"),
            (wasm.MEMORY, b"\x01\0\x01"),
            (wasm.GLOBAL, b"\x01\x7f\x01\x41\0\x0b"),
            (wasm.ELEMENT, b"\x01\x03\0\x01\0"),
            (wasm.DATA_COUNT, b"\x01"),
            (wasm.CODE, count + b"".join(wasm.leb(len(f)) + f for f in functions)),
            (wasm.DATA, b"\x01\x01\0"),
        )
    )
    validate(code)
    validate(metering.instrument(wasm.parse(code), release).code)


def test_instructions_that_do_not_exist_are_refused() -> None:
    for opcode in (b"\x06", b"\xfe\x00", b"\xfc\x12", b"\xfd\x9a\x01", b"\xfd\x80\x02"):
        body = b"\0\0" + opcode + b"\0\x0b"
        code = one_function(body)
        with pytest.raises(wasm.InvalidModule):
            metering.instrument(wasm.parse(code), weights.CURRENT)


def test_nans_are_canonical(make: Make) -> None:
    driver = make(
        update(
            "(f32.store (i32.const 0) (f32.div (f32.const -0) (f32.const 0)))"
            "(call $msg_reply_data_append (i32.const 0) (i32.const 4)) (call $msg_reply)"
        ),
        "msg_reply_data_append",
        "msg_reply",
    )
    assert driver.update("f").reply == bytes.fromhex("0000c07f")


def test_counts_are_the_same_on_two_runs(make: Make) -> None:
    body = update(
        "(drop (memory.grow (i32.const 3))) (memory.fill (i32.const 0) (i32.const 1) (i32.const 5))"
    )
    counts = {make(body).update("f").instructions for _ in range(3)}
    assert counts == {1 + 1 + 300 + 1 + 3 + 100 + 5}

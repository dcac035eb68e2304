"""Charges for touched pages of memory: exact, the same on every run, and split from the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from exec_support import Driver, trap_text, wat

from icgpt.replica import pages, weights
from icgpt.replica.messages import Kind, Outcome

pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/pagemap", os.R_OK), reason="the system doesn't tell what was touched"
)

TOUCH, COPY = 80_000, 48_000
WIDE = '(memory (export "memory") 64)'
LOAD = "(drop (i32.load8_u (i32.const {})))"
STORE = "(i32.store8 (i32.const {}) (i32.const 7))"

Make = Callable[..., Driver]


@pytest.fixture(params=["disk", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes a canister of function bodies; its files lie on disk and in memory."""
    folder = tmp_path
    if request.param == "memory":
        folder = Path("/dev/shm") / f"icgpt-test-{os.getpid()}"  # noqa: S108 - a tmpfs
        if not folder.parent.is_dir():
            pytest.skip("no tmpfs")
    made: list[Driver] = []

    def build(body: str, *imports: str, release: weights.Release = weights.CURRENT) -> Driver:
        driver = Driver(folder / str(len(made)), release)
        made.append(driver)
        assert driver.install(wat(body, *imports, memory=WIDE)).trap is None
        return driver

    yield build
    for driver in made:
        driver.canister.delete()
    if folder != tmp_path and folder.exists():
        folder.rmdir()


def both(body: str) -> str:
    """The same body as an update and as a query."""
    return f"""(func (export "canister_update f") {body} (call $msg_reply))
        (func (export "canister_query q") {body} (call $msg_reply))"""


def at(page: int, offset: int = 0) -> int:
    return page * weights.WASM_PAGE + offset


def charges(outcome: Outcome) -> int:
    assert outcome.trap is None, outcome.trap
    return outcome.page_instructions


CASES = {
    "nothing": ("", 0, 0),
    "one byte": (LOAD.format(at(3, 5)), 1, 0),
    "a page once": (LOAD.format(at(3)) + LOAD.format(at(3, 65_535)) + LOAD.format(at(3, 9)), 1, 0),
    "neighbours": (LOAD.format(at(3, 65_535)) + LOAD.format(at(4)), 2, 0),
    "across": (f"(drop (i64.load (i32.const {at(4) - 3})))", 2, 0),
    "a write is an access too": (STORE.format(at(9, 1)), 1, 1),
    "read, then written": (LOAD.format(at(9, 60_000)) + STORE.format(at(9)), 1, 1),
    "written, then read": (STORE.format(at(9)) + LOAD.format(at(9, 60_000)), 1, 1),
    "some of each": (
        "".join(LOAD.format(at(p, 777)) for p in range(0, 40, 3)) + STORE.format(at(5)),
        15,
        1,
    ),
    "filled": (f"(memory.fill (i32.const {at(2, 65_535)}) (i32.const 1) (i32.const 65538))", 3, 3),
    "copied": (
        f"(memory.copy (i32.const {at(20)}) (i32.const {at(10)}) (i32.const {at(2)}))",
        4,
        2,
    ),
    "all of it": (
        """(local $i i32) (loop $l (drop (i32.load (local.get $i)))
        (local.set $i (i32.add (local.get $i) (i32.const 4096)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 4194304))))""",
        64,
        0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_heap(make: Make, name: str) -> None:
    body, accessed, written = CASES[name]
    driver = make(both(body), "msg_reply")
    plain = make(both(body), "msg_reply", release=weights.WITHOUT_PAGES)
    code = plain.update("f")
    assert code.page_instructions == 0
    for _ in range(3):
        for _ in range(2):
            outcome = driver.update("f")
            assert charges(outcome) == accessed * TOUCH + written * (TOUCH + COPY)
            assert outcome.instructions - outcome.page_instructions == code.instructions
            # A query keeps nothing, so it pays for accesses alone.
            assert charges(driver.query("q")) == accessed * TOUCH
        driver.reopen()


def test_grown_memory_is_charged_when_it_is_touched(make: Make) -> None:
    body = f"""(drop (memory.grow (i32.const 8))) {LOAD.format(at(66))} {STORE.format(at(67, 9))}
        {STORE.format(at(67, 50_000))}"""
    driver = make(both(body), "msg_reply")
    assert charges(driver.query("q")) == 2 * TOUCH
    assert charges(driver.update("f")) == 2 * TOUCH + TOUCH + COPY
    assert charges(driver.update("f")) == 2 * TOUCH + TOUCH + COPY


def test_data_segments_are_no_touching(make: Make) -> None:
    body = f'(data (i32.const {at(2)}) "abc")' + both(LOAD.format(at(2)))
    driver = make(body, "msg_reply")
    assert charges(driver.update("f")) == TOUCH
    driver = make('(data (i32.const 9) "abc")(func (export "canister_init"))')
    outcome = driver.install(
        wat('(data (i32.const 9) "x")(func (export "canister_init"))'), b"", "reinstall"
    )
    assert charges(outcome) == 0


def test_a_start_function_and_init_pay_each(make: Make) -> None:
    body = f"""(func $s {STORE.format(at(1))}) (start $s)
        (func (export "canister_init") {LOAD.format(at(1))} {LOAD.format(at(2))})
        (func (export "canister_query q") {LOAD.format(at(1))})"""
    driver = make("")
    outcome = driver.install(wat(body, memory=WIDE), mode="reinstall")
    assert charges(outcome) == TOUCH + TOUCH + COPY + 2 * TOUCH
    value = wat(
        f"""(func $s {STORE.format(at(1))}) (start $s) (func (export "canister_init"))
        (func (export "canister_query q")
          (call $msg_reply_data_append (i32.const {at(1)}) (i32.const 1)) (call $msg_reply))""",
        "msg_reply_data_append",
        "msg_reply",
        memory=WIDE,
    )
    driver.install(value, mode="reinstall")
    assert driver.query("q").reply == b"\7"


def test_system_calls_touch_the_heap(make: Make) -> None:
    body = f"(call $msg_arg_data_copy (i32.const {at(7)}) (i32.const 0) (i32.const 70000))"
    driver = make(both(body), "msg_reply", "msg_arg_data_copy")
    assert charges(driver.update("f", bytes(70_000))) == 2 * (2 * TOUCH + COPY)


STABLE = """(drop (call $stable64_grow (i64.const 16)))
    (call $stable64_read (i64.const 0) (i64.const {}) (i64.const 10))
    (call $stable64_write (i64.const {}) (i64.const 0) (i64.const {}))"""
STABLE_CALLS = ("msg_reply", "stable64_grow", "stable64_read", "stable64_write")


@pytest.mark.parametrize(
    ("read", "write", "size", "accessed", "written"),
    [
        (at(1), at(2), 9, 2, 1),
        (at(1), at(1, 500), 9, 1, 1),
        (at(1) - 1, at(3) - 1, 2, 4, 2),
        (at(5), at(8), 3 * 65_536, 4, 3),
        (at(5), at(8), 3 * 65_536 + 1, 5, 4),
    ],
)
def test_stable_memory(
    make: Make, read: int, write: int, size: int, accessed: int, written: int
) -> None:
    heap = (size - 1) // weights.WASM_PAGE + 1  # read by the write; its first page is written too
    driver = make(both(STABLE.format(read, write, size)), *STABLE_CALLS)
    for _ in range(2):
        assert charges(driver.query("q")) == (accessed + heap) * TOUCH
        update = (accessed + heap) * TOUCH + (written + 1) * (TOUCH + COPY)
        assert charges(driver.update("f")) == update


def test_the_rule_before(make: Make) -> None:
    body = LOAD.format(at(1)) + STORE.format(at(2)) + STORE.format(at(2, 5000))
    driver = make(both(body), "msg_reply", release=weights.BEFORE)
    assert charges(driver.update("f")) == 2 * 4_000
    assert charges(driver.query("q")) == 0
    # ten bytes read into the heap; 5,000 bytes of stable memory written from byte 4,000 on
    driver = make(both(STABLE.format(0, 4_000, 5_000)), *STABLE_CALLS, release=weights.BEFORE)
    assert charges(driver.update("f")) == 4_000 + 3 * 1_000 + 3 * 3_000
    assert charges(driver.query("q")) == 3 * 1_000


def test_the_performance_counter_includes_pages(make: Make) -> None:
    body = f"""{STORE.format(at(9))} {LOAD.format(at(11))}
        (local.set $before (call $performance_counter (i32.const 0)))
        {LOAD.format(at(12))} {LOAD.format(at(12, 9000))} {STORE.format(at(11))}
        (i64.store (i32.const 0)
          (i64.sub (call $performance_counter (i32.const 0)) (local.get $before)))
        (call $msg_reply_data_append (i32.const 0) (i32.const 8)) (call $msg_reply)"""
    code = f'(func (export "canister_update f") (local $before i64) {body})'
    calls = ("performance_counter", "msg_reply_data_append", "msg_reply")
    paged = make(code, *calls).update("f").reply
    plain = make(code, *calls, release=weights.WITHOUT_PAGES).update("f").reply
    assert paged is not None
    assert plain is not None
    difference = int.from_bytes(paged, "little") - int.from_bytes(plain, "little")
    assert difference == 2 * TOUCH  # one page more accessed, one more written


def test_pages_count_against_the_limit(make: Make) -> None:
    limits = replace(weights.Limits(), update=1_000_000)
    release = replace(weights.CURRENT, limits=limits)
    few, many = "".join(STORE.format(at(p)) for p in range(4)), range(20, 26)
    driver = make(both(few), "msg_reply", release=release)
    assert charges(driver.update("f")) == 4 * (2 * TOUCH + COPY)
    body = both(few + "".join(LOAD.format(at(p)) for p in many))
    driver.install(wat(body, "msg_reply", memory=WIDE), mode="reinstall")
    outcome = driver.update("f")
    assert "IC0522" in trap_text(outcome)
    assert outcome.instructions == 1_000_000
    assert outcome.page_instructions == 1_000_000


def test_a_trap_pays_for_what_it_touched(make: Make) -> None:
    driver = make(f'(func (export "canister_update f") {STORE.format(at(3))} unreachable)')
    for _ in range(2):
        outcome = driver.update("f")
        assert "unreachable" in trap_text(outcome)
        assert outcome.page_instructions == 2 * TOUCH


def test_inspection_pays_for_access(make: Make) -> None:
    body = f'(func (export "canister_inspect_message") {STORE.format(at(3))})'
    assert make(body).run(Kind.INSPECT, method="x").page_instructions == TOUCH


def test_counting_units() -> None:
    assert pages.count([], 10) == 0
    assert pages.count([(0, 1), (3, 4), (9, 11), (12, 30)], 10) == 3
    assert pages.count([(0, 10), (10, 20), (40, 41)], 10) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's page tables")
def test_without_the_page_scan_the_counts_are_the_same(make: Make) -> None:
    from icgpt.replica import heap

    driver = make(both(CASES["some of each"][0]), "msg_reply")
    expected = charges(driver.update("f"))
    finder = heap._dirty_pages
    scan, finder._scan = finder._scan, False
    try:
        assert charges(driver.update("f")) == expected
    finally:
        finder._scan = scan

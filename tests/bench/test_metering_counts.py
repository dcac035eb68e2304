"""`./scripts/bench metering`, on a suite of the test's own whose counts are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import canbench_suite
import metering_counts
import pytest
import wasmtime
import yaml

from icgpt import candid
from icgpt.replica import weights

MODULE = """
(module
  (import "ic0" "performance_counter" (func $counter (param i32) (result i64)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_arg_data_size" (func $size (result i32)))
  (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
  (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
  (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
  (import "ic0" "env_var_count" (func $variables (result i32)))
  (memory 1)
  (data (i32.const 0) "{reply}")
  (global $init (mut i32) (i32.const 0))
  (func (export "canister_init") (global.set $init (call $size)))
  {benches}
  (func (export "canister_query another") (call $reply)))
"""
BENCH = """
  (func (export "canister_query __canbench__{name}") (local $before i64)
    (local.set $before (call $counter (i32.const 0)))
    {body}
    (i64.store (i32.const {at})
      (i64.sub (call $counter (i32.const 0)) (local.get $before)))
    (call $append (i32.const 0) (i32.const {size}))
    (call $reply))
"""
# Straight code is paid for where it begins, so between two readings in it there are only system
# calls: the counter's own, which is charged before it is read; growing; 20 and a byte each for
# writing, and two new pages of stable memory.
NOTHING = 200
GROW = 100
WRITE = 20 + 4_097
PAGES = 2 * 1_000
MARK = 0x1122334455667788


def reply() -> tuple[str, int, int]:
    """A result in Candid for the module's data, where its instructions stand, and its size."""
    figures = {"calls": 1, "instructions": MARK, "heap_increase": 0, "stable_memory_increase": 2}
    kind = candid.Record(dict.fromkeys(figures, candid.NAT64))
    scopes = candid.Vec(candid.Record({0: candid.TEXT, 1: kind}))
    inner = {**figures, "instructions": 5}
    value = {"total": figures, "scopes": [("part", inner)]}
    raw = candid.encode([candid.Record({"total": kind, "scopes": scopes})], [value])
    at = raw.index(MARK.to_bytes(8, "little"))
    return "".join(f"\\{byte:02x}" for byte in raw), at, len(raw)


def result(instructions: int) -> dict[str, Any]:
    figures = {"calls": 1, "instructions": instructions, "heap_increase": 0}
    total = {**figures, "stable_memory_increase": 2}
    return {"total": total, "scopes": {"part": {**total, "instructions": 5}}}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A folder as canbench leaves it behind, in a repository without a commit."""
    text, at, size = reply()
    bodies = {
        "nothing": "",
        "written": """(drop (call $grow (i64.const 1)))
            (call $write (i64.const 0) (i64.const 0) (i64.const 4097))""",
        # Traps unless all that canbench.yml names has reached the canister.
        "configured": """(call $read (i64.const 60000) (i64.const 65534) (i64.const 1))
            (if (i32.ne (i32.load8_u (i32.const 60000)) (i32.const 7)) (then unreachable))
            (if (i32.ne (global.get $init) (i32.const 3)) (then unreachable))
            (if (i32.ne (call $variables) (i32.const 2)) (then unreachable))""",
    }
    benches = "".join(
        BENCH.format(name=name, body=body, at=at, size=size) for name, body in bodies.items()
    )
    folder = tmp_path / "checkout" / "benchmarks"
    folder.mkdir(parents=True)
    module = MODULE.replace("{reply}", text).replace("{benches}", benches)
    (folder / "out.wasm").write_bytes(wasmtime.wat2wasm(module))
    (folder / "stable.bin").write_bytes(bytes(65_534) + b"\7")
    (folder / "variables.csv").write_text("COLOUR, blue\nSIZE,12\n")
    told = {
        "build_cmd": "cargo build",
        "wasm_path": "out.wasm",
        "init_args": {"hex": "010203"},
        "stable_memory": {"file": "stable.bin"},
        "env_vars": {"file": "variables.csv"},
    }
    (folder / "canbench.yml").write_text(yaml.safe_dump(told))
    commit(folder, nothing=NOTHING, written=NOTHING + GROW + WRITE + PAGES, configured=None)
    return folder


def commit(folder: Path, **counts: int | None) -> None:
    """Write the committed results; None for what the replica itself finds."""
    known = {name: result(count) for name, count in counts.items() if count is not None}
    for name in (name for name, count in counts.items() if count is None):
        (folder / "canbench_results.yml").write_text(yaml.safe_dump({"benches": known}))
        read = canbench_suite.read(folder)
        ((_, found),) = canbench_suite.run(read, weights.BEFORE, folder / name, name.__eq__)
        known[name] = result(found[""]["instructions"])
    (folder / "canbench_results.yml").write_text(
        yaml.safe_dump({"benches": known, "version": "0.4.1"})
    )


def run(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    code = metering_counts.main(["--json", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out or "null")


@pytest.fixture(autouse=True)
def _no_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering_counts, "commit_of", lambda _folder: "0123456789abcdef")


def test_equal_counts(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(suite.parent, capsys=capsys)
    assert (code, told["equal"], told["benchmarks"]) == (0, 3, 3)
    (found,) = told["suites"]
    assert (found["suite"], found["release"]) == ("benchmarks", "2026-06")
    counts = {item["benchmark"]: item["here"] for item in found["compared"]}
    assert counts["nothing"] == NOTHING
    assert counts["written"] == NOTHING + GROW + WRITE + PAGES


def test_another_rule_for_pages_is_seen(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without = ("--release", "2026-07 without pages")
    assert run(suite, "--only", "nothing", *without, capsys=capsys)[0] == 0
    code, told = run(suite, "--only", "written", *without, capsys=capsys)
    (found,) = told["suites"][0]["compared"]
    assert (code, found["committed"] - found["here"]) == (1, PAGES)


def test_differences_are_told(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(suite, nothing=NOTHING + 1, gone=7)
    code, told = run(suite, capsys=capsys)
    compared = {item["benchmark"]: item for item in told["suites"][0]["compared"]}
    assert (code, told["equal"]) == (1, 0)
    assert compared["nothing"]["differences"] == [
        {"scope": "", "field": "instructions", "committed": NOTHING + 1, "here": NOTHING}
    ]
    assert compared["gone"]["here"] is None
    assert compared["written"]["committed"] is None
    assert metering_counts.main([str(suite)]) == 1
    shown = capsys.readouterr().out
    assert f"instructions: committed {NOTHING + 1}, here {NOTHING}" in shown
    assert "0 of 4 benchmarks are equal" in shown


def test_a_scope_that_differs_is_a_difference() -> None:
    committed = {"": {"instructions": 9}, "part": {"instructions": 4, "calls": 1}}
    here = {"": {"instructions": 9, "calls": 1}, "part": {"instructions": 5, "calls": 1}}
    found = canbench_suite.compare("x", committed, here)
    assert [(d.scope, d.committed, d.here) for d in found.differences] == [("part", 4, 5)]
    assert canbench_suite.compare("x", committed, {**here, "part": committed["part"]}).equal


def test_costly_benchmarks_can_be_left_out(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(suite, "--at-most", "1000", capsys=capsys)
    assert (code, told["benchmarks"], told["left_out"]) == (0, 2, 1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("no module", "build it first, in"),
        ("no results", "no canbench.yml with results"),
        ("bad yaml", "can't be read"),
        ("no mapping", "holds no mapping"),
        ("bad hex", "non-hexadecimal"),
        ("no total", "has no 'total'"),
    ],
)
def test_what_cannot_be_run_is_told(
    suite: Path, change: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration, results = suite / "canbench.yml", suite / "canbench_results.yml"
    if change == "no module":
        (suite / "out.wasm").unlink()
    elif change == "no results":
        results.unlink()
    elif change == "bad yaml":
        configuration.write_text("a: [")
    elif change == "no mapping":
        configuration.write_text("- 1")
    elif change == "bad hex":
        configuration.write_text("init_args: {hex: xyz}")
    else:
        results.write_text("benches: {nothing: {}}")
    assert metering_counts.main([str(suite)]) == 1
    assert text in capsys.readouterr().err


def test_the_table_adds_up() -> None:
    row = {"repository": "a/b", "commit": "0123456789abcdef", "release": "2026-06"}
    rows = [
        {**row, "suite": "one", "benchmarks": 3, "equal": 3, "left_out": 0},
        {**row, "suite": "two", "benchmarks": 9, "equal": 8, "left_out": 2},
    ]
    assert metering_counts.table(rows).splitlines()[-1] == "| all |  |  |  | 11 of 12 | 2 |"

"""The platform's rules: limits of memory, freezing, allocations, deadlines, history, logs."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from exec_support import ENVIRONMENT, Driver, trap_text, wat
from replica_kit import Raw, number, wasm

from icgpt.candid import decode, encode
from icgpt.principal import MANAGEMENT
from icgpt.replica import canister_history, fees, weights
from icgpt.replica import management_types as types
from icgpt.replica.messages import Kind

PAGE = 1 << 16
GROWING = r"""
(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "debug_print" (func $print (param i32 i32)))
  (import "ic0" "canister_liquid_cycle_balance128" (func $liquid (param i32)))
  (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
  (memory 2)
  (func (export "canister_update grow")
    (call $arg_copy (i32.const 16) (i32.const 0) (i32.const 4))
    (drop (memory.grow (i32.load (i32.const 16)))) (call $reply))
  (func (export "canister_update grow_stable")
    (call $arg_copy (i32.const 16) (i32.const 0) (i32.const 4))
    (drop (call $stable_grow (i64.extend_i32_u (i32.load (i32.const 16))))) (call $reply))
  (func (export "canister_on_low_wasm_memory")
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
  (func (export "canister_update print")
    (call $arg_copy (i32.const 16) (i32.const 0) (call $arg_size))
    (call $print (i32.const 16) (call $arg_size)) (call $reply))
  (func (export "canister_query get")
    (call $append (i32.const 0) (i32.const 4)) (call $reply))
  (func (export "canister_query liquid")
    (call $liquid (i32.const 32)) (call $append (i32.const 32) (i32.const 16)) (call $reply)))
"""


def change(raw: Raw, canister: bytes, **wanted: Any) -> tuple[str, Any]:
    value = {"canister_id": canister, "settings": wanted}
    return raw.manage("update_settings", types.UPDATE_SETTINGS, value, canister)


def grow(raw: Raw, canister: bytes, pages: int, method: str = "grow") -> tuple[str, Any]:
    return raw.call(canister, method, struct.pack("<I", pages))


def test_the_heap_has_a_limit_and_the_canister_is_told_when_it_is_near(raw: Raw) -> None:
    canister = raw.new(wasm(GROWING))
    limits = {"wasm_memory_limit": 10 * PAGE, "wasm_memory_threshold": 3 * PAGE}
    assert change(raw, canister, **limits)[0] == "replied"
    assert grow(raw, canister, 5)[0] == "replied"  # 7 pages, 3 left
    assert number(raw.query(canister, "get")) == 0
    assert grow(raw, canister, 1)[0] == "replied"
    assert grow(raw, canister, 0)[0] == "replied"
    assert number(raw.query(canister, "get")) == 1  # told once
    status, (code, text, error) = grow(raw, canister, 3)
    assert (status, code, error) == ("rejected", 5, "IC0539")
    assert f"limit of {10 * PAGE} bytes. The peak Wasm memory usage was {11 * PAGE} bytes" in text
    assert raw.status(canister)["memory_metrics"]["wasm_memory_size"] == 8 * PAGE
    assert change(raw, canister, wasm_memory_limit=0)[0] == "replied"
    assert grow(raw, canister, 3)[0] == "replied"
    assert change(raw, canister, wasm_memory_limit=12 * PAGE)[0] == "replied"
    grow(raw, canister, 0)
    assert number(raw.query(canister, "get")) == 2  # it was well in between


def test_memory_that_would_freeze_the_canister_is_not_given(raw: Raw) -> None:
    canister = raw.create(amount=600 * 10**9)
    assert raw.install(canister, wasm(GROWING))[0] == "replied"
    for method, pages in (("grow", 40_000), ("grow_stable", 600_000)):
        status, (code, text, error) = grow(raw, canister, pages, method)
        assert (status, code, error) == ("rejected", 5, "IC0532")
        assert "due to insufficient cycles. At least" in text
    assert raw.status(canister)["memory_metrics"]["stable_memory_size"] == 0
    liquid = int.from_bytes(raw.query(canister, "liquid"), "little")
    status = raw.status(canister)
    frozen = status["idle_cycles_burned_per_day"] // 86_400 * 2_592_000
    assert status["cycles"] - liquid == pytest.approx(frozen, rel=0.1)  # and a fee
    assert grow(raw, canister, 600_000, "grow_stable")[0] == "rejected"
    assert change(raw, canister, freezing_threshold=0)[0] == "replied"
    assert grow(raw, canister, 600_000, "grow_stable")[0] == "replied"


def test_a_frozen_canister_answers_queries_alone(raw: Raw) -> None:
    canister = raw.create(amount=100 * 10**9)
    assert raw.install(canister, wasm(GROWING))[0] == "replied"
    assert change(raw, canister, freezing_threshold=10**13)[0] == "replied"
    status, (code, text, error) = raw.call(canister, "print", b"x")
    assert (status, code, error) == ("rejected", 2, "IC0207")
    assert "is out of cycles: please top up the canister with at least" in text
    assert number(raw.query(canister, "get")) == 0


def test_allocations_need_cycles(raw: Raw) -> None:
    canister = raw.create(amount=10**12)
    for wanted, error in (
        ({"compute_allocation": 50}, "IC0530"),
        ({"memory_allocation": 1 << 40}, "IC0531"),
    ):
        status, value = change(raw, canister, **wanted)
        assert (status, value[0], value[2]) == ("rejected", 5, error)
        assert "due to insufficient cycles" in value[1]
    assert change(raw, canister, memory_allocation=1 << 30)[0] == "replied"
    assert raw.status(canister)["memory_size"] == 1 << 30


def test_a_call_that_cannot_be_paid_is_not_made(raw: Raw) -> None:
    poor, rich = raw.create(amount=60 * 10**9), raw.new()
    assert raw.install(poor)[0] == "replied"
    status, (code, _, error) = raw.proxy(poor, rich, "inc")
    assert (status, code, error) == ("rejected", 5, "IC0503")  # it traps when refused
    before = raw.status(rich)["cycles"]
    assert raw.proxy(rich, rich, "inc")[0] == "replied"
    spent = before - raw.status(rich)["cycles"]
    assert 0 < spent < fees.RESPONSE_PREPAID // 100  # what was held back has been given back


def test_calls_of_other_canisters_may_have_to_bring_cycles(raw: Raw, canister: bytes) -> None:
    other = raw.new()
    assert change(raw, other, minimum_incoming_canister_call_cycles=10**9)[0] == "replied"
    assert raw.status(other)["settings"]["minimum_incoming_canister_call_cycles"] == 10**9
    theirs, ours = (raw.status(c)["cycles"] for c in (other, canister))
    status, answer = raw.proxy(canister, other, "accept", cycles=10**9 - 1)
    assert (status, answer[0]) == ("replied", 5)
    assert b"at least 1000000000 transferred cycles" in answer
    assert ours - raw.status(canister)["cycles"] < 10**9  # what was attached came back
    assert 0 <= theirs - raw.status(other)["cycles"] < 10**7  # paid for being there alone
    accepted = raw.proxy(canister, other, "accept", cycles=10**9)[1]
    assert int.from_bytes(accepted, "little") == 10**9 // 2
    # Users and the canister itself need none.
    assert number(raw.update(other, "inc")) == 1
    assert number(raw.proxy(other, other, "inc")[1]) == 2


def test_the_log_can_be_had_in_part(raw: Raw) -> None:
    canister = raw.new(wasm(GROWING))
    for word in (b"one", b"two", b"three"):
        raw.update(canister, "print", word)

    def lines(**selection: Any) -> list[dict[str, Any]]:
        value = {"canister_id": canister, "filter": selection or None}
        effective = encode([types.FETCH_LOGS], [value])
        content = raw.content(
            "query",
            canister_id=MANAGEMENT,
            method_name="fetch_canister_logs",
            arg=effective,
        )
        from cbor2 import loads

        from icgpt.principal import to_text

        response = raw.post(f"v2/canister/{to_text(canister)}/query", raw.envelope(content))
        reply = loads(response.content)["reply"]["arg"]
        found: list[dict[str, Any]] = decode(reply, [types.LOGS])[0]["canister_log_records"]
        return found

    all_lines = lines()
    assert [line["content"] for line in all_lines] == [b"one", b"two", b"three"]
    assert lines(by_idx={"start": 1, "end": 2}) == all_lines[1:2]
    start = all_lines[1]["timestamp_nanos"]
    assert lines(by_timestamp_nanos={"start": start, "end": 1 << 63}) == all_lines[1:]


def test_the_history_of_a_canister(raw: Raw) -> None:
    asking, canister = raw.new(), raw.create()
    raw.install(canister)
    raw.install(canister, mode="upgrade")
    change(raw, canister, controllers=[raw.sender, asking])
    raw.simple("uninstall_code", canister)
    value = {"canister_id": canister, "sender_canister_version": 77}
    arg = encode([types.CHANGE], [value])
    assert raw.proxy(asking, MANAGEMENT, "uninstall_code", arg)[0] == "replied"
    arg = encode(
        [canister_history.INFO_ARGUMENT], [{"canister_id": canister, "num_requested_changes": 5}]
    )
    status, reply = raw.proxy(asking, MANAGEMENT, "canister_info", arg)
    assert status == "replied"
    (info,) = decode(reply, [canister_history.INFO])
    assert info["total_num_changes"] == 6
    assert info["controllers"] == [raw.sender, asking]
    assert info["module_hash"] is None
    kinds = [next(iter(item["details"])) for item in info["recent_changes"]]
    deployment, uninstall = "code_deployment", "code_uninstall"
    assert kinds == [deployment, deployment, "controllers_change", uninstall, uninstall]
    assert info["recent_changes"][1]["details"][deployment]["mode"] == {"upgrade": None}
    origins = [item["origin"] for item in info["recent_changes"]]
    assert origins[0] == {"from_user": {"user_id": raw.sender}}
    assert origins[4] == {"from_canister": {"canister_id": asking, "canister_version": 77}}
    assert raw.call(MANAGEMENT, "canister_info", arg, canister)[1][2] == "IC0406"


def test_stable_memory_is_not_all_to_be_touched_in_one_message(tmp_path: Path) -> None:
    module = wat(
        """(func (export "canister_update touch")
             (drop (call $stable64_grow (i64.const 200)))
             (call $stable64_read (i64.const 0) (i64.const 0) (i64.const 6553600))
             (call $msg_reply))
           (func (export "canister_query look")
             (call $stable64_read (i64.const 0) (i64.const 0) (i64.const 6553600))
             (call $msg_reply))
        """,
        *("stable64_grow", "stable64_read", "msg_reply"),
        memory="(memory 200)",
    )
    limits = weights.Limits(update_stable=100 * PAGE, query_stable=99 * PAGE)
    release = weights.Release("test", limits=limits)
    driver = Driver(tmp_path, release)
    driver.install(module)
    assert driver.update("touch").trap is None
    text = trap_text(driver.query("look"))
    assert text.startswith("IC0524")
    assert "limit 6400 KB for regular messages and 6336 KB for queries" in text
    assert driver.run(Kind.UPDATE, method="touch", environment=ENVIRONMENT).trap is None

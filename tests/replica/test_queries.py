"""Queries beside updates, composite queries, and calls that wait for a bounded time only."""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from replica_kit import Raw, number, wasm
from test_durability import let_go, management, open_subnet, request

from icgpt.candid import TEXT, decode, encode
from icgpt.principal import MANAGEMENT
from icgpt.replica import management_types as types
from icgpt.replica.management import canister_id
from icgpt.replica.native import icp_ledger

ASKING = r"""
(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reject_code" (func $reject_code (result i32)))
  (import "ic0" "msg_reject_msg_size" (func $reject_size (result i32)))
  (import "ic0" "msg_reject_msg_copy" (func $reject_copy (param i32 i32 i32)))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_on_cleanup" (func $on_cleanup (param i32 i32)))
  (import "ic0" "call_data_append" (func $call_append (param i32 i32)))
  (import "ic0" "call_cycles_add128" (func $add_cycles (param i64 i64)))
  (import "ic0" "call_with_best_effort_response" (func $bounded (param i32)))
  (import "ic0" "msg_deadline" (func $deadline (result i64)))
  (import "ic0" "msg_cycles_refunded128" (func $refunded (param i32)))
  (import "ic0" "call_perform" (func $perform (result i32)))
  (import "ic0" "canister_self_copy" (func $self_copy (param i32 i32 i32)))
  (import "ic0" "performance_counter" (func $counter (param i32) (result i64)))
  (memory 64)
  (table funcref (elem $forward $refuse $trapping $cleaning))
  (data (i32.const 64) "forever")
  (func $add (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
  (func $forward (param i32)
    (call $add)
    (call $arg_copy (i32.const 1024) (i32.const 0) (call $arg_size))
    (call $append (i32.const 0) (i32.const 4))
    (call $append (i32.const 1024) (call $arg_size)) (call $reply))
  (func $refuse (param i32)
    (i32.store (i32.const 1024) (call $reject_code))
    (call $reject_copy (i32.const 1028) (i32.const 0) (call $reject_size))
    (call $append (i32.const 1024) (i32.add (i32.const 4) (call $reject_size))) (call $reply))
  (func $trapping (param i32) (call $add) (unreachable))
  (func $cleaning (param i32) (call $add))
  (func $begin (param $on_reply i32)
    (local $callee i32) (local $method i32) (local $rest i32)
    (call $arg_copy (i32.const 1024) (i32.const 0) (call $arg_size))
    (local.set $callee (i32.load8_u (i32.const 1024)))
    (local.set $method (i32.add (i32.const 1025) (local.get $callee)))
    (local.set $rest
      (i32.add (i32.add (local.get $method) (i32.const 1)) (i32.load8_u (local.get $method))))
    (call $call_new (i32.const 1025) (local.get $callee)
      (i32.add (local.get $method) (i32.const 1)) (i32.load8_u (local.get $method))
      (local.get $on_reply) (i32.const 0) (i32.const 1) (i32.const 0))
    (call $call_append (local.get $rest)
      (i32.sub (i32.add (i32.const 1024) (call $arg_size)) (local.get $rest))))
  (func (export "canister_composite_query ask")
    (call $add) (call $begin (i32.const 0)) (drop (call $perform)))
  (func (export "canister_composite_query ask_twice")
    (call $begin (i32.const 2)) (call $on_cleanup (i32.const 3) (i32.const 0))
    (drop (call $perform))
    (call $begin (i32.const 0)) (drop (call $perform)))
  (func (export "canister_update ask_bounded")
    (call $begin (i32.const 0)) (call $add_cycles (i64.const 0) (i64.const 1000))
    (call $bounded (i32.const 1)) (drop (call $perform)))
  (func (export "canister_update forever")
    (call $self_copy (i32.const 512) (i32.const 0) (i32.const 10))
    (call $call_new (i32.const 512) (i32.const 10) (i32.const 64) (i32.const 7)
      (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
    (drop (call $perform)))
  (func (export "canister_update deadline")
    (i64.store (i32.const 1024) (call $deadline))
    (call $append (i32.const 1024) (i32.const 8)) (call $reply))
  (func (export "canister_query get") (call $append (i32.const 0) (i32.const 4)) (call $reply))
  (func $spin (local $n i32)
    (call $arg_copy (i32.const 1024) (i32.const 0) (i32.const 4))
    (local.set $n (i32.load (i32.const 1024)))
    (loop $again
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $again (i32.gt_s (local.get $n) (i32.const 0)))))
  (func (export "canister_update both")
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (i32.store (i32.const 3000000) (i32.load (i32.const 0)))
    (call $append (i32.const 0) (i32.const 4)) (call $reply))
  (func (export "canister_query compare")
    (i32.store (i32.const 100) (i32.load (i32.const 0)))
    (call $spin)
    (i32.store (i32.const 104) (i32.load (i32.const 3000000)))
    (call $append (i32.const 100) (i32.const 8)) (call $reply))
  (func (export "canister_update spin")
    (call $spin) (call $append (i32.const 0) (i32.const 4)) (call $reply)))
"""


def target(canister: bytes, method: str, arg: bytes = b"") -> bytes:
    name = method.encode()
    return bytes([len(canister)]) + canister + bytes([len(name)]) + name + arg


def ask(raw: Raw, canister: bytes, method: str, arg: bytes) -> tuple[int, bytes]:
    reply = raw.query(canister, method, arg)
    return number(reply[:4]), reply[4:]


def test_composite_queries_call_other_queries(raw: Raw) -> None:
    asking, other = raw.new(wasm(ASKING)), raw.new()
    raw.update(other, "inc")
    # Its own memory goes on through the callback, and is forgotten at the end.
    assert ask(raw, asking, "ask", target(other, "get")) == (2, b"\1\0\0\0")
    assert ask(raw, asking, "ask", target(other, "get")) == (2, b"\1\0\0\0")
    assert number(raw.query(asking, "get")) == 0
    nested = target(asking, "ask", target(other, "whoami"))
    count, reply = ask(raw, asking, "ask", nested)
    assert (count, number(reply[:4]), reply[4:]) == (2, 2, asking)
    # A callback traps: what it did is undone, its cleanup runs, the second call answers.
    assert ask(raw, asking, "ask_twice", target(other, "get")) == (3, b"\1\0\0\0")
    assert raw.status(asking)["query_stats"]["num_calls_total"] == 5


def test_composite_queries_ask_the_network_itself(raw: Raw) -> None:
    asking = raw.new(wasm(ASKING))
    arg = encode([types.CANISTER], [{"canister_id": asking}])
    _, reply = ask(raw, asking, "ask", target(MANAGEMENT, "canister_status", arg))
    (status,) = decode(reply, [types.STATUS])
    assert status["module_hash"] == raw.status(asking)["module_hash"]
    _, reply = ask(raw, asking, "ask", target(icp_ledger.ID, "icrc1_symbol", b"DIDL\0\0"))
    assert decode(reply, [TEXT]) == ["ICP"]
    # Only what it may see, and queries alone.
    other = encode([types.CANISTER], [{"canister_id": raw.new()}])
    code, text = ask(raw, asking, "ask", target(MANAGEMENT, "canister_status", other))
    assert (code, b"Only the controllers" in text) == (5, True)
    code, text = ask(raw, asking, "ask", target(MANAGEMENT, "stop_canister", arg))
    assert (code, b"not found" in text) == (5, True)
    assert raw.status(asking)["status"] == {"running": None}


def test_composite_queries_are_refused_what_is_no_query(raw: Raw) -> None:
    asking, other = raw.new(wasm(ASKING)), raw.new()
    code, text = ask(raw, asking, "ask", target(other, "inc"))
    assert (code, b"no query method 'inc'" in text) == (5, True)
    code, text = ask(raw, asking, "ask", target(bytes(8) + b"\1\1", "get"))
    assert (code, b"not found" in text) == (3, True)
    arg = b""
    for _ in range(9):
        arg = target(asking, "ask", arg)
    assert b"exceeded the maximum call depth" in raw.query(asking, "ask", arg)
    status, (code, _, error) = raw.call(asking, "ask", target(other, "get"))
    assert (status, code, error) == ("rejected", 5, "IC0527")


def test_a_query_is_answered_while_an_update_runs(raw: Raw) -> None:
    canister, other = raw.new(wasm(ASKING)), raw.new()
    done = threading.Event()

    def long() -> None:
        Raw(raw.url, raw.root_key).update(canister, "spin", struct.pack("<I", 2_000_000_000))
        done.set()

    thread = threading.Thread(target=long)
    thread.start()
    before = 0
    while not done.is_set():
        assert number(raw.query(canister, "get")) == 0
        assert number(raw.query(other, "get")) == 0
        before += not done.is_set()
    thread.join()
    assert before > 3


def test_a_query_sees_one_state_however_many_commits_go_on(raw: Raw) -> None:
    canister = raw.new(wasm(ASKING))
    stop = threading.Event()

    def change() -> None:
        client = Raw(raw.url, raw.root_key)
        while not stop.is_set():
            client.update(canister, "both")

    thread = threading.Thread(target=change)
    thread.start()
    seen = set()
    try:
        for _ in range(20):
            first, second = struct.unpack(
                "<II", raw.query(canister, "compare", struct.pack("<I", 50_000_000))
            )
            assert first == second
            seen.add(first)
    finally:
        stop.set()
        thread.join()
    assert len(seen) > 1


def test_a_bounded_call_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icgpt.replica.subnet.KEPT", 1 << 24)
    subnet = open_subnet(tmp_path)
    first, second = canister_id(0), canister_id(1)
    requests: list[Any] = []
    for index, canister in enumerate((first, second)):
        create = "provisional_create_canister_with_cycles"
        requests.append(
            (management(f"create {index}", create, types.PROVISIONAL_CREATE, {}), MANAGEMENT)
        )
        value = {"mode": {"install": None}, "canister_id": canister, "arg": b""}
        value["wasm_module"] = wasm(ASKING)
        requests.append(
            (management(f"install {index}", "install_code", types.INSTALL, value), canister)
        )
    requests.append((request("quick", first, "ask_bounded", target(second, "deadline")), first))
    requests.append((request("slow", first, "ask_bounded", target(second, "forever")), first))
    for item, payer in requests:
        subnet.submit(item, payer)
    while subnet.history.pending:
        subnet._turn()
    quick, slow = (subnet.history.get(item.id) for item, _ in requests[-2:])
    assert quick is not None
    assert slow is not None
    (deadline,) = struct.unpack("<Q", quick.reply[4:])
    sent = subnet.router.messages[quick.id].received
    assert 0 < deadline - sent < 3 * 10**9
    assert slow.reply == struct.pack("<I", 6) + b"Call deadline has expired."
    assert not subnet.router.hosted[first].record.calls
    assert not subnet.router.deadlines
    let_go(subnet)


def test_whoever_stops_a_canister_that_is_never_done_is_told_so(tmp_path: Path) -> None:
    subnet = open_subnet(tmp_path)
    first = canister_id(0)
    create = "provisional_create_canister_with_cycles"
    value = {"mode": {"install": None}, "canister_id": first, "arg": b""}
    value["wasm_module"] = wasm(ASKING)
    stop = management("stop", "stop_canister", types.CANISTER, {"canister_id": first})
    for item, payer in (
        (management("create", create, types.PROVISIONAL_CREATE, {}), MANAGEMENT),
        (management("install", "install_code", types.INSTALL, value), first),
        (request("forever", first, "forever"), first),
        (stop, first),
    ):
        subnet.submit(item, payer)
    router = subnet.router
    while first not in router.hosted or not router.hosted[first].record.stop_requests:
        subnet._turn()
    (waiting,) = router.hosted[first].record.stop_requests
    router.expire_stops(waiting.since + 300 * 10**9)
    assert router.hosted[first].record.stop_requests == [waiting]
    router.expire_stops(waiting.since + 301 * 10**9)
    entry = subnet.history.get(stop.id)
    assert entry is not None
    assert entry.reject is not None
    assert entry.reject.error_code == "IC0206"
    assert router.hosted[first].record.status == "stopping"
    let_go(subnet)

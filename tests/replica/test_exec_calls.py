"""The system calls: what they give, where they are forbidden, and that no pointer does harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from exec_support import CALLER, CANISTER, ENVIRONMENT, Driver, trap_text, wat

from icgpt.principal import to_text
from icgpt.replica import ic0
from icgpt.replica.messages import Callback, Kind, Message, Outcome, Reject

Make = Callable[..., Driver]

# Sends `size` bytes of the heap as the reply.
REPLY = """(func $send (param $at i32) (param $size i32)
  (call $msg_reply_data_append (local.get $at) (local.get $size)) (call $msg_reply))"""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Driver] = []

    def build(body: str, *imports: str) -> Driver:
        driver = Driver(tmp_path / str(len(made)))
        made.append(driver)
        names = dict.fromkeys((*imports, "msg_reply", "msg_reply_data_append"))
        assert driver.install(wat(REPLY + body, *names)).trap is None
        return driver

    yield build
    for driver in made:
        driver.canister.close()


def blob(make: Make, name: str, kind: str = "update") -> Driver:
    """A canister that answers with what `NAME_size` and `NAME_copy` give."""
    return make(
        f"""(func (export "canister_{kind} f") (local $n i32) (local.set $n (call ${name}_size))
        (call ${name}_copy (i32.const 256) (i32.const 0) (local.get $n))
        (call $send (i32.const 256) (local.get $n)))""",
        f"{name}_size",
        f"{name}_copy",
    )


def value(make: Make, call: str, size: int, kind: str = "update") -> Driver:
    """A canister that answers with a number: the result of a call, or what it stores at 256."""
    name = call.split()[0]
    if ic0.SIGNATURES[name].type.results:
        store = f"i{size * 8}.store (i32.const 256) (call ${call})"
    else:
        store = f"call ${call}"
    return make(
        f"""(func (export "canister_{kind} f") ({store})
        (call $send (i32.const 256) (i32.const {size})))""",
        name,
    )


def test_what_a_canister_may_read(make: Make) -> None:
    assert blob(make, "msg_arg_data").update("f", b"some words").reply == b"some words"
    assert blob(make, "msg_caller").update("f").reply == CALLER
    assert blob(make, "canister_self").update("f").reply == CANISTER
    assert blob(make, "subnet_self").update("f").reply == ENVIRONMENT.subnet_id
    assert blob(make, "root_key").update("f").reply == ENVIRONMENT.root_key
    certified = blob(make, "data_certificate", "query")
    assert certified.query("f", certificate=b"cert").reply == b"cert"
    assert "not present" in trap_text(certified.query("f"))


def number(driver: Driver, **fields: object) -> int:
    outcome = driver.update("f", **fields)
    assert outcome.trap is None, outcome
    assert outcome.reply is not None
    return int.from_bytes(outcome.reply, "little")


def test_numbers(make: Make) -> None:
    assert number(value(make, "time", 8)) == ENVIRONMENT.time
    assert number(value(make, "canister_version", 8)) == 7
    assert number(value(make, "canister_status", 4)) == 1
    assert number(value(make, "in_replicated_execution", 4)) == 1
    assert number(value(make, "canister_cycle_balance", 8)) == 10**13
    assert number(value(make, "canister_cycle_balance128 (i32.const 256)", 16)) == 10**13
    assert number(value(make, "msg_deadline", 8), deadline=55) == 55
    assert number(value(make, "stable64_grow (i64.const -1)", 8)) == (1 << 64) - 1
    assert number(value(make, "stable_grow (i32.const -1)", 4)) == (1 << 32) - 1
    assert number(value(make, "env_var_count", 4)) == 2
    assert number(value(make, "data_certificate_present", 4)) == 0
    query = value(make, "in_replicated_execution", 4, "query")
    assert query.query("f").reply == bytes(4)
    assert query.query("f", replicated=True).reply == b"\1\0\0\0"


def test_prices(make: Make) -> None:
    assert number(value(make, "cost_create_canister (i32.const 256)", 16)) == 500_000_000_000
    price = number(
        value(make, "cost_http_request (i64.const 10) (i64.const 100) (i32.const 256)", 16)
    )
    assert price == (3_000_000 + 780_000 + 400 * 10 + 800 * 100) * 13
    price = number(value(make, "cost_call (i64.const 5) (i64.const 95) (i32.const 256)", 16))
    assert price == 260_000 + 100_000 + 1000 * 2097152 + 5_000_000 + 40_000_000_000
    for call in ("cost_sign_with_ecdsa", "cost_sign_with_schnorr", "cost_vetkd_derive_key"):
        driver = make(
            f"""(data (i32.const 0) "key_1")
            (func (export "canister_update f")
              (i32.store (i32.const 512) (call ${call}
                (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 256)))
              (call $send (i32.const 256) (i32.const 16)))
            (func (export "canister_update code")
              (i32.store (i32.const 512) (call ${call}
                (i32.const 0) (i32.const 5) (i32.const 9) (i32.const 256)))
              (i32.store (i32.const 516) (call ${call}
                (i32.const 1) (i32.const 4) (i32.const 0) (i32.const 256)))
              (call $send (i32.const 512) (i32.const 8)))""",
            call,
        )
        assert number(driver) == 26_153_846_153
        assert driver.update("code").reply == b"\1\0\0\0\2\0\0\0"


def test_environment_variables(make: Make) -> None:
    driver = make(
        """(data (i32.const 0) "SIZECOLOUR")
        (func $name (param $i i32) (local $n i32)
          (local.set $n (call $env_var_name_size (local.get $i)))
          (call $env_var_name_copy (local.get $i) (i32.const 256) (i32.const 0) (local.get $n))
          (call $send (i32.const 256) (local.get $n)))
        (func $value (param $at i32) (param $size i32) (local $n i32)
          (local.set $n (call $env_var_value_size (local.get $at) (local.get $size)))
          (call $env_var_value_copy (local.get $at) (local.get $size)
            (i32.const 256) (i32.const 0) (local.get $n))
          (call $send (i32.const 256) (local.get $n)))
        (func (export "canister_update name0") (call $name (i32.const 0)))
        (func (export "canister_update name2") (call $name (i32.const 2)))
        (func (export "canister_update size") (call $value (i32.const 0) (i32.const 4)))
        (func (export "canister_update colour") (call $value (i32.const 4) (i32.const 6)))
        (func (export "canister_update none") (call $value (i32.const 0) (i32.const 5)))
        (func (export "canister_update there")
          (i32.store8 (i32.const 256) (call $env_var_name_exists (i32.const 0) (i32.const 4)))
          (i32.store8 (i32.const 257) (call $env_var_name_exists (i32.const 0) (i32.const 3)))
          (call $send (i32.const 256) (i32.const 2)))""",
        "env_var_name_size",
        "env_var_name_copy",
        "env_var_value_size",
        "env_var_value_copy",
        "env_var_name_exists",
    )
    assert driver.update("name0").reply == b"COLOUR"
    assert "index 2 is out of bounds" in trap_text(driver.update("name2"))
    assert driver.update("size").reply == b"12"
    assert driver.update("colour").reply == b"blau"
    assert "SIZEC not found" in trap_text(driver.update("none"))
    assert driver.update("there").reply == b"\1\0"


def test_controllers(make: Make) -> None:
    driver = make(
        """(func (export "canister_update f") (local $n i32)
          (local.set $n (call $msg_arg_data_size))
          (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (local.get $n))
          (i32.store (i32.const 256) (call $is_controller (i32.const 0) (local.get $n)))
          (call $send (i32.const 256) (i32.const 1)))""",
        "is_controller",
        "msg_arg_data_size",
        "msg_arg_data_copy",
    )
    assert driver.update("f", CALLER).reply == b"\1"
    assert driver.update("f", b"other").reply == b"\0"
    assert "invalid principal" in trap_text(driver.update("f", bytes(30)))


def test_certified_data_and_timer(make: Make) -> None:
    driver = make(
        """(data (i32.const 0) "0123456789abcdef0123456789abcdef!")
        (func (export "canister_update f") (call $certified_data_set (i32.const 0) (i32.const 32))
          (i64.store (i32.const 256) (call $global_timer_set (i64.const 17)))
          (i64.store (i32.const 264) (call $global_timer_set (i64.const 18)))
          (call $send (i32.const 256) (i32.const 16)))
        (func (export "canister_update long")
          (call $certified_data_set (i32.const 0) (i32.const 33)))
        (func (export "canister_update trap") (call $certified_data_set (i32.const 0) (i32.const 1))
          (drop (call $global_timer_set (i64.const 17))) unreachable)""",
        "certified_data_set",
        "global_timer_set",
    )
    outcome = driver.update("f", environment=replace(ENVIRONMENT, timer=5))
    assert outcome.certified_data == b"0123456789abcdef" * 2
    assert outcome.timer == 18
    assert outcome.reply == (5).to_bytes(8, "little") + (17).to_bytes(8, "little")
    assert "no larger than 32 bytes. Found 33" in trap_text(driver.update("long"))
    outcome = driver.update("trap")
    assert outcome.certified_data is None
    assert outcome.timer is None


# -- answers ------------------------------------------------------------------------------------


def test_answers(make: Make) -> None:
    driver = make(
        """(data (i32.const 0) "hello\\ff")
        (func (export "canister_update parts")
          (call $msg_reply_data_append (i32.const 0) (i32.const 2))
          (call $msg_reply_data_append (i32.const 2) (i32.const 3)) (call $msg_reply))
        (func (export "canister_update reject") (call $msg_reject (i32.const 0) (i32.const 5)))
        (func (export "canister_update bad") (call $msg_reject (i32.const 0) (i32.const 6)))
        (func (export "canister_update twice") (call $msg_reply) (call $msg_reply))
        (func (export "canister_update late") (call $msg_reply)
          (call $msg_reply_data_append (i32.const 0) (i32.const 1)))
        (func (export "canister_update both") (call $msg_reject (i32.const 0) (i32.const 1))
          (call $msg_reply))
        (func (export "canister_update silent"))
        (func (export "canister_query quiet"))""",
        "msg_reject",
    )
    assert driver.update("parts").reply == b"hello"
    assert driver.update("reject").reject == Reject(4, "hello", "IC0406")
    assert "IC0504" in trap_text(driver.update("bad"))
    for method in ("twice", "late", "both"):
        assert "already replied" in trap_text(driver.update(method))
    assert "already replied" in trap_text(driver.update("parts", answered=True))
    silent = driver.update("silent")
    assert (silent.trap, silent.reply, silent.reject) == (None, None, None)
    assert "IC0506" in trap_text(driver.query("quiet"))


def test_reply_sizes(make: Make) -> None:
    body = """(func $f (call $send (i32.const 0) (i32.const {size})))
      (func (export "canister_update u") (drop (memory.grow (i32.const 60))) (call $f))
      (func (export "canister_query q") (drop (memory.grow (i32.const 60))) (call $f))"""
    limit, query_limit = 2 << 20, 3 << 20
    fits = make(body.format(size=limit))
    assert fits.update("u").reply == bytes(limit)
    over = make(body.format(size=limit + 1))
    assert f"({limit + 1}) cannot be larger than {limit}." in trap_text(over.update("u"))
    assert over.query("q", replicated=True).trap is not None
    assert over.query("q").reply == bytes(limit + 1)
    assert make(body.format(size=query_limit)).query("q").trap is None
    assert make(body.format(size=query_limit + 1)).query("q").trap is not None


def test_traps_in_the_platforms_words(make: Make) -> None:
    driver = make(
        """(data (i32.const 0) "boom!")
        (func (export "canister_update explicit") (call $trap (i32.const 0) (i32.const 5)))
        (func (export "canister_update heap") (drop (i32.load (i32.const 65533))))
        (func (export "canister_update div")
          (drop (i32.div_u (i32.const 1) (i32.load (i32.const 99)))))
        (func (export "canister_update stable")
          (call $stable64_read (i64.const 0) (i64.const 0) (i64.const 1)))""",
        "trap",
        "stable64_read",
    )
    name = to_text(CANISTER)
    outcome = driver.update("explicit")
    assert outcome.trap == Reject(
        5,
        f"Error from Canister {name}: Canister called `ic0.trap` with message: 'boom!'.\n"
        "Consider gracefully handling failures from this canister or altering the canister to "
        "handle exceptions. See documentation: https://internetcomputer.org/docs/current/"
        "references/execution-errors#trapped-explicitly",
        "IC0503",
    )
    assert outcome.logs == [(ENVIRONMENT.time, b"[TRAP]: boom!")]
    prefix = f"IC0502 Error from Canister {name}: Canister trapped: "
    assert trap_text(driver.update("heap")).startswith(prefix + "heap out of bounds.\n")
    assert trap_text(driver.update("div")).startswith(prefix + "integer division by 0.\n")
    assert trap_text(driver.update("stable")).startswith(prefix + "stable memory out of bounds.\n")
    text = trap_text(driver.update("nothing"))
    assert text.startswith(f"IC0536 Error from Canister {name}: Canister has no update method 'no")
    assert "no query method 'heap'" in trap_text(driver.query("heap"))
    assert "composite_query method" in trap_text(driver.run(Kind.COMPOSITE_QUERY, method="heap"))


def test_logs(make: Make) -> None:
    driver = make(
        """(data (i32.const 0) "line")
        (func (export "canister_update f") (call $debug_print (i32.const 0) (i32.const 4))
          (call $debug_print (i32.const 65535) (i32.const 4)) unreachable)""",
        "debug_print",
    )
    outcome = driver.update("f")
    assert outcome.logs == [
        (ENVIRONMENT.time, b"line"),
        (ENVIRONMENT.time, b"(debug_print message out of memory bounds)"),
        (ENVIRONMENT.time, b"[TRAP]: unreachable"),
    ]
    printing = 5 + 2 + 100 + 2 * 4 + 50 * 4
    assert outcome.instructions == 1 + 2 * printing + 1


# -- cycles and calls ---------------------------------------------------------------------------


def test_cycles(make: Make) -> None:
    driver = make(
        """(func (export "canister_update f")
          (call $msg_cycles_available128 (i32.const 256))
          (call $msg_cycles_accept128 (i64.const 0) (i64.const 600) (i32.const 272))
          (call $msg_cycles_accept128 (i64.const 1) (i64.const 0) (i32.const 288))
          (call $msg_cycles_available128 (i32.const 304))
          (call $cycles_burn128 (i64.const 0) (i64.const 50) (i32.const 320))
          (call $canister_cycle_balance128 (i32.const 336))
          (call $send (i32.const 256) (i32.const 96)))""",
        "msg_cycles_available128",
        "msg_cycles_accept128",
        "cycles_burn128",
        "canister_cycle_balance128",
    )
    outcome = driver.update("f", cycles=1000)
    assert outcome.reply is not None
    numbers = [int.from_bytes(outcome.reply[i : i + 16], "little") for i in range(0, 96, 16)]
    assert numbers == [1000, 600, 400, 0, 50, 10**13 + 1000 - 50]
    assert (outcome.cycles_accepted, outcome.cycles_burned) == (1000, 50)


CALLING = """(data (i32.const 0) "\\01\\02\\03") (data (i32.const 16) "method")
(data (i32.const 32) "argument")
(table 4 funcref) (elem (i32.const 0) $reply $reject $cleanup $wrong)
(global $seen (mut i32) (i32.const 0))
(func $reply (param $env i32) (local $n i32) (local.set $n (call $msg_arg_data_size))
  (i32.store (i32.const 256) (local.get $env))
  (call $msg_arg_data_copy (i32.const 260) (i32.const 0) (local.get $n))
  (call $send (i32.const 256) (i32.add (local.get $n) (i32.const 4))))
(func $reject (param $env i32) (local $n i32) (local.set $n (call $msg_reject_msg_size))
  (i32.store (i32.const 256) (call $msg_reject_code))
  (call $msg_reject_msg_copy (i32.const 260) (i32.const 0) (local.get $n))
  (call $send (i32.const 256) (i32.add (local.get $n) (i32.const 4))))
(func $cleanup (param $env i32) (global.set $seen (local.get $env)))
(func $wrong)
(func $new (call $call_new (i32.const 0) (i32.const 3) (i32.const 16) (i32.const 6)
  (i32.const 0) (i32.const 70) (i32.const 1) (i32.const 71)))
(func (export "canister_update call") (call $new)
  (call $call_data_append (i32.const 32) (i32.const 3))
  (call $call_data_append (i32.const 35) (i32.const 5))
  (call $call_on_cleanup (i32.const 2) (i32.const 72))
  (call $call_with_best_effort_response (i32.const 30))
  (call $call_cycles_add128 (i64.const 0) (i64.const 12))
  (i32.store (i32.const 256) (call $call_perform))
  (call $send (i32.const 256) (i32.const 4)))
(func (export "canister_update call_trap") (call $new) (drop (call $call_perform)) unreachable)
(func (export "canister_update forgotten") (call $new)
  (call $call_cycles_add128 (i64.const 0) (i64.const 12)) (call $new)
  (call $canister_cycle_balance128 (i32.const 256)) (call $send (i32.const 256) (i32.const 16)))
(func (export "canister_update too_much") (call $new)
  (call $call_cycles_add128 (i64.const 1) (i64.const 0)))
(func (export "canister_update none") (call $call_data_append (i32.const 0) (i32.const 0)))
(func (export "canister_update long") (call $call_new (i32.const 0) (i32.const 30) (i32.const 16)
  (i32.const 6) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
(func (export "canister_query seen") (i32.store (i32.const 256) (global.get $seen))
  (call $send (i32.const 256) (i32.const 4)))"""


@pytest.fixture
def calling(make: Make) -> Driver:
    return make(
        CALLING,
        "call_new",
        "call_data_append",
        "call_on_cleanup",
        "call_with_best_effort_response",
        "call_cycles_add128",
        "call_perform",
        "canister_cycle_balance128",
        "msg_arg_data_size",
        "msg_arg_data_copy",
        "msg_reject_code",
        "msg_reject_msg_size",
        "msg_reject_msg_copy",
    )


def test_calls(calling: Driver) -> None:
    (call,) = calling.update("call").calls
    assert (call.callee, call.method, call.arg) == (b"\1\2\3", "method", b"argument")
    assert (call.cycles, call.timeout_seconds) == (12, 30)
    assert (call.on_reply, call.on_reject) == (Callback(0, 70), Callback(1, 71))
    assert call.on_cleanup == Callback(2, 72)
    assert calling.update("call_trap").calls == []
    forgotten = calling.update("forgotten")
    assert forgotten.calls == []
    assert forgotten.reply == (10**13).to_bytes(16, "little")
    assert "out of cycles" in trap_text(calling.update("too_much"))
    assert "no call is under construction" in trap_text(calling.update("none"))
    assert "invalid principal" in trap_text(calling.update("long"))


def test_callbacks(calling: Driver) -> None:
    outcome = calling.run(Kind.REPLY_CALLBACK, callback=Callback(0, 70), arg=b"the answer")
    assert outcome.reply == (70).to_bytes(4, "little") + b"the answer"
    reject = Reject(3, "nobody there", "IC0301")
    outcome = calling.run(Kind.REJECT_CALLBACK, callback=Callback(1, 71), reject=reject)
    assert outcome.reply == (3).to_bytes(4, "little") + b"nobody there"
    assert calling.run(Kind.CLEANUP, callback=Callback(2, 72)).trap is None
    assert calling.number("seen") == 72
    assert calling.run(Kind.CLEANUP, callback=Callback(2, 1 << 31)).trap is None
    assert calling.number("seen") == 1 << 31


def test_callbacks_that_do_not_exist(calling: Driver) -> None:
    for function in (4, 1000, (1 << 32) - 1):
        outcome = calling.run(Kind.REPLY_CALLBACK, callback=Callback(function, 0))
        assert "IC0513" in trap_text(outcome)
    assert calling.run(Kind.REPLY_CALLBACK, callback=Callback(3, 0)).trap is not None
    assert calling.update("call").trap is None


def test_composite_query_callbacks_are_undone(calling: Driver) -> None:
    calling.run(Kind.CLEANUP, callback=Callback(2, 9), replicated=False)
    assert calling.number("seen") == 0


# -- what is forbidden --------------------------------------------------------------------------


def everything() -> bytes:
    """A module that makes each system call, with the same number for every argument."""
    methods = []
    for name, signature in ic0.SIGNATURES.items():
        arguments = " ".join(
            "(local.get $n)" if t == 0x7F else "(i64.extend_i32_s (local.get $n))"
            for t in signature.type.params
        )
        drop = "drop" if signature.type.results else ""
        methods.append(f"(func ${name}_ (param $n i32) (call ${name} {arguments}) {drop})")
    functions = " ".join(f"${name}_" for name in ic0.SIGNATURES)
    count = len(ic0.SIGNATURES)
    body = f"""(table {count} funcref) (elem (i32.const 0) {functions})
    (global $i (mut i32) (i32.const 0)) (global $n (mut i32) (i32.const 0))
    (func $go (call_indirect (param i32) (global.get $n) (global.get $i)))
    (func (export "pick") (param i32 i32))
    """
    entries = (
        ("canister_update f", ""),
        ("canister_query f2", ""),
        ("canister_composite_query f3", ""),
        ("canister_inspect_message", ""),
        ("canister_global_timer", ""),
    )
    run = """(global.set $i (i32.load (i32.const 0))) (global.set $n (i32.load (i32.const 4)))
      (call $go)"""
    for export, _ in entries:
        body += f'(func (export "{export}") {run})'
    body += """(func (export "canister_update pick_next")
      (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (i32.const 8)) (call $msg_reply))"""
    return wat("".join(methods) + body, *ic0.SIGNATURES)


KINDS = [
    (Kind.UPDATE, {"method": "f"}),
    (Kind.QUERY, {"method": "f2", "replicated": False, "certificate": b"c"}),
    (Kind.COMPOSITE_QUERY, {"method": "f3", "replicated": False}),
    (Kind.INSPECT, {"method": "f"}),
    (Kind.TIMER, {}),
    (Kind.REPLY_CALLBACK, {}),
    (Kind.REJECT_CALLBACK, {"reject": Reject(4, "no", "")}),
    (Kind.CLEANUP, {}),
]


@pytest.mark.parametrize("number", [0, 1, 65_536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
def test_every_call_everywhere_with_wild_arguments(tmp_path: Path, number: int) -> None:
    """Each ends in an outcome; a call that the specification forbids there always traps."""
    driver = Driver(tmp_path)
    assert driver.install(everything()).trap is None
    for index, (name, signature) in enumerate(ic0.SIGNATURES.items()):
        picked = index.to_bytes(4, "little") + number.to_bytes(4, "little")
        assert driver.update("pick_next", picked).trap is None
        for kind, fields in KINDS:
            if kind in (Kind.REPLY_CALLBACK, Kind.REJECT_CALLBACK, Kind.CLEANUP):
                fields = {**fields, "callback": Callback(index, number)}
            outcome = driver.run(kind, **fields)
            mode = ic0.mode(
                Message(kind, ENVIRONMENT, replicated=bool(fields.get("replicated", 1)))
            )
            if mode[0] not in signature.modes:
                assert f'"ic0_{name}" cannot be executed in {mode[1]} mode' in trap_text(outcome)
            assert driver.update("pick_next", picked).trap is None
    driver.canister.close()


def test_nothing_but_memory_and_clockless_calls_at_start(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    code = wat("(func $s (drop (call $time))) (start $s)", "time")
    assert '"ic0_time" cannot be executed in start mode' in trap_text(driver.install(code))
    code = wat("(func $s (drop (call $stable64_grow (i64.const 2)))) (start $s)", "stable64_grow")
    assert driver.install(code).trap is None
    assert driver.canister.stable_bytes == 2 << 16
    driver.canister.close()


@pytest.mark.parametrize(
    ("body", "imports", "text"),
    [
        (
            "(call $msg_arg_data_copy (i32.const 0) (i32.const 0) (i32.const 4))",
            "msg_arg_data_copy",
            "ic0.msg_arg_data_copy payload: src=0 + length=4 exceeds the slice",
        ),
        (
            "(call $msg_arg_data_copy (i32.const 0) (i32.const -1) (i32.const 2))",
            "msg_arg_data_copy",
            "src=4294967295 + length=2",
        ),
        (
            "(call $msg_arg_data_copy (i32.const 65534) (i32.const 0) (i32.const 3))",
            "msg_arg_data_copy",
            "ic0.msg_arg_data_copy heap: src=65534 + length=3 exceeds the slice size=65536",
        ),
        (
            "(call $msg_reply_data_append (i32.const 65535) (i32.const 2))",
            "msg_reply_data_append",
            "msg.reply: src=65535 + length=2 exceeds the slice size=65536",
        ),
        (
            "(call $stable64_write (i64.const 0) (i64.const 65535) (i64.const 2))",
            "stable64_write stable64_grow",
            "heap out of bounds",
        ),
        (
            "(call $stable64_write (i64.const 65535) (i64.const 0) (i64.const 2))",
            "stable64_write stable64_grow",
            "stable memory out of bounds",
        ),
        (
            "(call $stable64_read (i64.const -1) (i64.const 0) (i64.const 2))",
            "stable64_read stable64_grow",
            "heap out of bounds",
        ),
        (
            "(call $stable64_read (i64.const 0) (i64.const -1) (i64.const 2))",
            "stable64_read stable64_grow",
            "stable memory out of bounds",
        ),
        (
            "(call $stable64_read (i64.const 0) (i64.const 0) (i64.const -1))",
            "stable64_read stable64_grow",
            "IC0522",
        ),
        (
            "(call $canister_cycle_balance128 (i32.const 65521))",
            "canister_cycle_balance128",
            "length=16 exceeds the slice size=65536",
        ),
    ],
)
def test_bounds(make: Make, body: str, imports: str, text: str) -> None:
    names = imports.split()
    grow = "(drop (call $stable64_grow (i64.const 1)))" if "stable64_grow" in names else ""
    driver = make(f'(func (export "canister_update f") {grow} {body})', *names)
    assert text in trap_text(driver.update("f", b"abc"))


def test_32_bit_stable_calls_on_a_large_memory(make: Make) -> None:
    driver = make(
        """(func (export "canister_update grow") (drop (call $stable64_grow (i64.const 65537)))
          (call $msg_reply))
        (func (export "canister_update f") (drop (call $stable_size)))
        (func (export "canister_update write")
          (call $stable_write (i32.const 0) (i32.const 0) (i32.const 0)))""",
        "stable64_grow",
        "stable_size",
        "stable_write",
    )
    assert driver.update("f").trap is None
    driver.update("grow")
    for method in ("f", "write"):
        assert "32 bit stable memory api used on a memory larger" in trap_text(
            driver.update(method)
        )


def test_an_error_of_ours_in_a_call_undoes_the_message_and_is_raised(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = make(
        """(func (export "canister_update f") (i32.store (i32.const 0) (i32.const 5))
          (drop (call $time)) (call $send (i32.const 0) (i32.const 4)))
        (func (export "canister_query look") (call $send (i32.const 0) (i32.const 4)))""",
        "time",
    )
    api = driver.canister._api

    def fail() -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "charge", lambda _: fail())
    with pytest.raises(KeyboardInterrupt):
        driver.update("f")
    monkeypatch.undo()
    assert driver.number("look") == 0
    assert driver.update("f").trap is None
    assert driver.number("look") == 5

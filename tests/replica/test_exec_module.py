"""Which modules are accepted, and that hostile bytes are refused and nothing worse."""

from __future__ import annotations

import gzip
import hashlib
import random
import zlib
from pathlib import Path

import pytest
import wasmtime
from exec_support import Driver, one_function, trap_text, wat

from icgpt import compiled
from icgpt.replica import engine, module, wasm, weights
from icgpt.replica.ic0 import SIGNATURES
from icgpt.replica.messages import Kind
from icgpt.replica.module import prepare
from icgpt.replica.wasm import InvalidModule


def prepared(code: bytes) -> module.Prepared:
    return prepare(code, weights.CURRENT)


def refused(text: str | bytes, reason: str) -> None:
    code = text if isinstance(text, bytes) else bytes(wasmtime.wat2wasm(text))
    with pytest.raises(InvalidModule, match=reason):
        prepared(code)


def custom(name: str, content: bytes) -> bytes:
    return wasm.section(wasm.CUSTOM, wasm.text(name) + content)


def test_what_a_module_says_about_itself() -> None:
    code = wat(
        '(func (export "canister_query greet")) (func (export "canister_init"))'
        '(func (export "helper"))'
    )
    code += custom("icp:public candid:service", b"service : {}") + custom("icp:private x", b"12")
    found = prepared(code)
    assert found.exports == {"canister_query greet", "canister_init", "helper"}
    assert found.metadata == {"candid:service": b"service : {}"}
    assert found.private_metadata == {"x": b"12"}
    assert found.hash == hashlib.sha256(code).digest()


def test_compressed_modules() -> None:
    code = wat('(func (export "canister_query greet"))')
    packed = gzip.compress(code)
    found = prepared(packed)
    assert found.hash == hashlib.sha256(packed).digest()
    assert found.exports == {"canister_query greet"}


def test_damaged_and_huge_compressed_modules() -> None:
    packed = gzip.compress(wat("") + custom("filler", random.Random(1).randbytes(5000)))
    refused(packed[:-20], "truncated")
    refused(packed[:100] + b"\0\0\0\0" + packed[104:], "damaged|truncated")
    refused(gzip.compress(bytes(module.MAX_MODULE + 1), 1), "when inflated")
    refused(b"\x1f\x8b", "truncated|damaged")


def test_sizes() -> None:
    refused(bytes(module.MAX_MODULE + 1), "more than")
    nops = b"\x00" + b"\x01" * (11 << 20) + b"\x0b"
    code = one_function(nops)
    refused(code, "code section")
    many = "".join("(global (mut i32) (i32.const 0))" for _ in range(1001))
    refused(f"(module (memory 1) {many})", "globals: 1001")


def test_functions_that_would_take_long_to_compile() -> None:
    refused(f"(module (memory 1) (func {'(nop)' * 1_000_001}))", "1000002 instructions")
    refused(f"(module (memory 1) (func $f {'(call $f)' * 20_001}))", "complexity")
    assert prepared(wat(f"(func $f {'(call $f)' * 19_000})")).exports == frozenset()


def test_imports() -> None:
    refused('(module (import "env" "f" (func)))', "env.f")
    refused('(module (import "ic0" "no_such" (func)))', "ic0.no_such")
    refused('(module (import "ic0" "time" (func)))', "should be of type")
    refused('(module (import "ic0" "time" (memory 1)))', "only functions")
    refused('(module (import "ic0" "g" (global i32)))', "only functions")


@pytest.mark.parametrize(
    ("export", "reason"),
    [
        ('(func (export "canister_foo"))', "no entry point"),
        ('(func (export "canister_start"))', "reserved"),
        ('(func (export "icgpt:counter"))', "reserved"),
        ('(func (export "canister_init") (param i32))', "should be of type"),
        ('(func (export "canister_query x") (result i32) (i32.const 1))', "should be of type"),
        ('(func (export "canister_query x")) (func (export "canister_update x"))', "than once"),
    ],
)
def test_exports(export: str, reason: str) -> None:
    refused(f"(module (memory 1) {export})", reason)


def test_features_that_the_platform_has_not() -> None:
    refused("(module (memory 1) (memory 1))", "memories: 2")
    refused("(module (memory 1 1 shared))", "not supported")
    refused("(module (memory i64 1))", "not supported")
    relaxed = (
        "(module (memory 1) (func (drop (i8x16.relaxed_swizzle "
        "(v128.const i64x2 0 0) (v128.const i64x2 0 0)))))"
    )
    refused(relaxed, "relaxed")
    refused("(module (global (mut funcref) (ref.null func)))", "references")


def test_custom_sections() -> None:
    empty = wat("")
    refused(empty + custom("icp:public", b""), "neither")
    refused(empty + custom("icp:protected x", b""), "neither")
    refused(empty + custom("icp:public x", b"") + custom("icp:private x", b""), "twice")
    refused(empty + b"".join(custom(f"icp:public {i}", b"") for i in range(17)), "too many")
    refused(empty + custom("icp:public x", bytes((1 << 20) + 1)), "too large")
    assert prepared(empty + custom("name", b"\xff\xff")).metadata == {}


def test_invalid_code() -> None:
    body = b"\x00\x6a\x0b"  # i32.add of nothing
    code = one_function(body)
    refused(code, "type mismatch")
    for junk in (b"", b"\0asm", b"\0asm\2\0\0\0", b"#!/bin/sh\n", bytes(100)):
        refused(junk, "no Wasm module")


def sample() -> bytes:
    """A module with something in every section."""
    return wat(
        """(global $g (mut i64) (i64.const 5)) (global v128 (v128.const i64x2 1 2))
        (table 4 funcref) (elem (i32.const 0) $a $b) (data (i32.const 8) "hello") (data "passive")
        (start $a)
        (func $a (global.set $g (i64.const -1)))
        (func $b (param i32) (result i32) (local f64 f32)
          (block $x (result i32) (br_table $x 0 $x (i32.const 7) (local.get 0))))
        (func (export "canister_update f")
          (memory.init 1 (i32.const 0) (i32.const 0) (i32.const 3)) (data.drop 1)
          (drop (i32x4.extract_lane 2 (v128.load offset=300 (i32.const 0))))
          (if (i32.const 1) (then (drop (f64.const 3.5))) (else (drop (f32.const 1)))))""",
        "time",
        "msg_reply",
    )


def accepts_or_refuses(code: bytes) -> None:
    """Either it is refused, or what comes of it is a module that wasmtime accepts."""
    try:
        found = prepared(code)
    except InvalidModule:
        return
    engine.validate(found.metered.code)


def test_every_truncation() -> None:
    code = sample()
    engine.validate(prepared(code).metered.code)
    for length in range(len(code)):
        accepts_or_refuses(code[:length])


def test_mutations() -> None:
    code = sample()
    random_source = random.Random(20)
    for _ in range(10_000):
        mutant = bytearray(code)
        for _ in range(random_source.choice((1, 1, 2, 5))):
            at = random_source.randrange(len(mutant))
            choice = random_source.randrange(4)
            if choice == 0:
                mutant[at] = random_source.randrange(256)
            elif choice == 1:
                mutant[at] ^= 1 << random_source.randrange(8)
            elif choice == 2:
                del mutant[at : at + random_source.randrange(1, 6)]
            else:
                mutant[at:at] = random_source.choice((b"\xff\xff\xff\xff\x0f", b"\x80" * 12, b"\0"))
            if not mutant:
                break
        accepts_or_refuses(bytes(mutant))


def test_the_rewriter_alone_survives_mutations() -> None:
    """Without wasmtime's validation in front of it."""
    code = sample()
    random_source = random.Random(21)
    for _ in range(20_000):
        mutant = bytearray(code)
        for _ in range(random_source.randrange(1, 4)):
            mutant[random_source.randrange(8, len(mutant))] = random_source.randrange(256)
        try:
            module.metering.instrument(wasm.parse(bytes(mutant)), weights.CURRENT)
        except InvalidModule:
            continue


def test_numbers_without_end() -> None:
    for payload in (b"\xff" * 1000, b"\xff\xff\xff\xff\x0f", b"\x80" * 9 + b"\0"):
        for kind in range(13):
            accepts_or_refuses(wasm.HEADER + wasm.section(kind, payload))


def test_a_module_without_memory_can_be_installed(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    assert driver.install(b"\0asm\1\0\0\0").trap is None
    assert driver.canister.heap_bytes == 0
    assert "IC0536" in trap_text(driver.update("anything"))
    driver.reopen()
    assert driver.canister.installed
    driver.canister.close()


def test_traps_while_instantiating_fail_the_installation(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    assert "IC0502" in trap_text(driver.install(wat("(func $s unreachable) (start $s)")))
    text = trap_text(driver.install(wat('(data (i32.const 65535) "too long")')))
    assert "heap out of bounds" in text or "IC0521" in text
    assert not driver.canister.installed
    assert driver.run(Kind.UPDATE, method="x").trap is not None
    driver.canister.close()


def test_tables_are_bounded(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    for table in ("(table 1000001 funcref)", "(table 4294967295 funcref)"):
        assert "IC0521" in trap_text(driver.install(wat(table)))
    assert driver.install(wat("(table 1000000 funcref)")).trap is None
    driver.canister.close()


def test_compiled_modules_are_kept_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICGPT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "WORTH_KEEPING", 0)
    code = prepared(sample()).metered.code
    engine.compile_module(code)
    folder = tmp_path / "compiled"
    assert folder.stat().st_mode & 0o777 == 0o700
    (entry,) = folder.iterdir()
    kept = entry.read_bytes()
    engine.compile_module(code)
    assert entry.read_bytes() == kept
    damaged = bytearray(kept)
    damaged[len(damaged) // 2] ^= 1
    entry.write_bytes(damaged)
    engine.compile_module(code)
    assert entry.read_bytes() == kept
    entry.write_bytes(hashlib.sha256(b"junk").digest() + b"junk")
    engine.compile_module(code)
    assert entry.read_bytes() == kept


def test_a_cache_folder_open_to_others_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICGPT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "WORTH_KEEPING", 0)
    folder = tmp_path / "compiled"
    folder.mkdir()
    folder.chmod(0o777)
    engine.compile_module(prepared(sample()).metered.code)
    assert list(folder.iterdir()) == []


def test_the_inflater_stops_early() -> None:
    bomb = zlib.compressobj(9, wbits=31)
    chunk = bytes(1 << 20)
    packed = b"".join(bomb.compress(chunk) for _ in range(200)) + bomb.flush()
    refused(packed, "when inflated")


# What the crate ic0 1.2.0, on which ic-cdk 0.20 is built, can import.
IC0 = """
    accept_message call_cycles_add128 call_data_append call_new call_on_cleanup call_perform
    call_with_best_effort_response canister_cycle_balance128
    canister_liquid_cycle_balance128 canister_self_copy canister_self_size canister_status
    canister_version certified_data_set cost_call cost_create_canister cost_http_request
    cost_http_request_v2 cost_sign_with_ecdsa cost_sign_with_schnorr cost_vetkd_derive_key
    cycles_burn128 data_certificate_copy data_certificate_present data_certificate_size
    debug_print env_var_count env_var_name_copy env_var_name_exists env_var_name_size
    env_var_value_copy env_var_value_size global_timer_set in_replicated_execution
    is_controller msg_arg_data_copy msg_arg_data_size msg_caller_copy
    msg_caller_info_data_copy msg_caller_info_data_size msg_caller_info_signer_copy
    msg_caller_info_signer_size msg_caller_size msg_cycles_accept128 msg_cycles_available128
    msg_cycles_refunded128 msg_deadline msg_method_name_copy msg_method_name_size msg_reject
    msg_reject_code msg_reject_msg_copy msg_reject_msg_size msg_reply msg_reply_data_append
    performance_counter root_key_copy root_key_size stable64_grow stable64_read
    stable64_size stable64_write subnet_self_copy subnet_self_node_count subnet_self_size
    time trap
"""


def test_every_system_call_that_the_rust_cdk_knows_is_there(tmp_path: Path) -> None:
    names = IC0.split()
    assert set(names) <= set(SIGNATURES)
    assert Driver(tmp_path).install(wat("", *names)).trap is None

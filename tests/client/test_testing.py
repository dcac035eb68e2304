"""The pytest plugin, as another project uses it: a run of pytest within this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from model_kit import ROOT, tiny_config, write_model

TESTS = '''
import wasmtime
from icgpt.candid import TEXT, decode, encode

WAT = r"""
(module
  (import "ic0" "msg_arg_data_size" (func $size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (func (export "canister_init")
    (call $copy (i32.const 0) (i32.const 0) (call $size))
    (i32.store (i32.const 1000) (call $size)))
  (func (export "canister_query get")
    (call $append (i32.const 0) (i32.load (i32.const 1000))) (call $reply)))
"""

def test_any_canister(replica):
    canister = replica.install(bytes(wasmtime.wat2wasm(WAT)), encode([TEXT], ["hello"]))
    assert decode(replica.agent.query(canister, "get", b"DIDL\\0\\0"), [TEXT]) == ["hello"]
    assert replica.url.startswith("http://127.0.0.1:")
    assert len(replica.root_key) == 133

def test_the_model(model_canister):
    assert model_canister.info().ready
    assert len(model_canister.infer([1, 2], 3, 0)) == 3

def test_it_is_shared(model_canister, replica):
    assert model_canister.agent is replica.agent
'''


def test_another_project(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny", tiny_config())
    wasm = ROOT / "canister" / "build" / "model.wasm.gz"
    settings = f"[pytest]\nicgpt_model = tiny\nicgpt_wasm = {wasm}\n"
    (tmp_path / "pytest.ini").write_text(settings)
    (tmp_path / "test_theirs.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "icgpt.testing", "-q"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout

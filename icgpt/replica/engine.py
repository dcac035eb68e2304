"""The one wasmtime engine of the process that runs canisters.

NaNs are canonical, so that floats are the same on every machine; threads, relaxed SIMD and several
memories are off, as on the platform. Linear memories come from `heap`.
"""

from __future__ import annotations

import threading
from functools import cache

import wasmtime
from wasmtime import _ffi as ffi

from icgpt import compiled
from icgpt.replica.heap import use_heaps
from icgpt.replica.wasm import InvalidModule

WASM_STACK = 5 << 20  # the platform's
THREAD_STACK = 16 << 20  # of threads started from now on: that, and the host calls above it


# Here and not in `engine`: the thread that will run canisters may be started before it.
if threading.stack_size() < THREAD_STACK:
    threading.stack_size(THREAD_STACK)


@cache
def engine() -> wasmtime.Engine:
    """The engine, made when it is first needed."""
    config = wasmtime.Config()
    config.cranelift_nan_canonicalization = True
    config.wasm_threads = False
    config.wasm_relaxed_simd = False
    config.wasm_multi_memory = False
    config.wasm_memory64 = False
    config.wasm_gc = False
    config.wasm_function_references = False
    config.wasm_exceptions = False
    config.wasm_simd = True
    config.wasm_bulk_memory = True
    config.wasm_reference_types = True
    ffi.wasmtime_config_async_stack_size_set(config.ptr(), WASM_STACK + (1 << 20))  # must exceed
    config.max_wasm_stack = WASM_STACK
    config.memory_init_cow = False  # the heap's own copy-on-write takes its place
    use_heaps(config)
    return wasmtime.Engine(config)


def validate(code: bytes) -> None:
    """Let wasmtime check a module; raises `InvalidModule`."""
    try:
        wasmtime.Module.validate(engine(), code)
    except wasmtime.WasmtimeError as error:
        raise InvalidModule(_first_line(error)) from None


def compile_module(code: bytes) -> wasmtime.Module:
    """Compile a metered module, or take it from the cache; raises `InvalidModule`."""
    try:
        return compiled.compile_module(engine(), code)
    except wasmtime.WasmtimeError as error:
        raise InvalidModule(_first_line(error)) from None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join(line for line in lines if line != "Caused by:")[:500]

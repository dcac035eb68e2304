"""The one wasmtime engine of the process, and the compiled modules that it keeps on disk.

NaNs are canonical, so that floats are the same on every machine; threads, relaxed SIMD and several
memories are off, as on the platform. Linear memories come from `heap`. Compiling a megabyte takes
about a second, so what was compiled is kept in the user's cache folder. A compiled module is code
that runs unchecked: the folder must belong to us and be closed to everybody else, and each file
carries its own SHA-256 against torn writes; otherwise it is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import threading
from functools import cache
from importlib.metadata import version
from pathlib import Path

import platformdirs
import wasmtime
from wasmtime import _ffi as ffi

from icgpt.replica.heap import use_heaps
from icgpt.replica.wasm import InvalidModule

WASM_STACK = 5 << 20  # the platform's
THREAD_STACK = 16 << 20  # of threads started from now on: that, and the host calls above it
KEPT = 24  # compiled modules in the cache folder
WORTH_KEEPING = 1 << 16  # bytes; smaller modules compile in no time


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
    folder = _cache_folder() if len(code) >= WORTH_KEEPING else None
    key = hashlib.sha256(version("wasmtime").encode() + b"\0" + code).hexdigest()
    path = folder / key if folder is not None else None
    if path is not None:
        module = _load(path)
        if module is not None:
            return module
    try:
        module = wasmtime.Module(engine(), code)
    except wasmtime.WasmtimeError as error:
        raise InvalidModule(_first_line(error)) from None
    if path is not None:
        _store(path, bytes(module.serialize()))
    return module


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join(line for line in lines if line != "Caused by:")[:500]


def _cache_folder() -> Path | None:
    """The cache folder if it is ours alone, else None."""
    folder = Path(os.environ.get("ICGPT_CACHE_DIR") or platformdirs.user_cache_dir("icgpt"))
    folder = folder / "compiled"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return folder if ours and not found.st_mode & 0o077 else None


def _load(path: Path) -> wasmtime.Module | None:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            data = file.read()
        os.utime(path)
    except OSError:
        return None
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        return None
    try:
        return wasmtime.Module.deserialize(engine(), data[32:])
    except wasmtime.WasmtimeError:
        return None  # of another configuration: compile again


def _store(path: Path, data: bytes) -> None:
    """Write a cache entry whole or not at all; a full disk only costs the cache."""
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
        entries = sorted(path.parent.iterdir(), key=lambda p: p.stat().st_mtime)
        for old in entries[:-KEPT]:
            old.unlink(missing_ok=True)

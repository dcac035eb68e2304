"""Modules of WebAssembly made machine code, which is kept on disk.

Compiling a megabyte takes about a second, so what was compiled is kept in the user's cache folder.
A compiled module is code that runs unchecked: the folder must belong to us and be closed to
everybody else, and each file carries its own SHA-256 against torn writes; otherwise it is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from importlib.metadata import version
from pathlib import Path

import platformdirs
import wasmtime

KEPT = 24  # compiled modules in the cache folder
WORTH_KEEPING = 1 << 16  # bytes; smaller modules compile in no time


def compile_module(engine: wasmtime.Engine, code: bytes) -> wasmtime.Module:
    """Compile a module, or take it from the cache; raises `wasmtime.WasmtimeError`."""
    folder = _cache_folder() if len(code) >= WORTH_KEEPING else None
    key = hashlib.sha256(version("wasmtime").encode() + b"\0" + code).hexdigest()
    path = folder / key if folder is not None else None
    if path is not None:
        module = _load(engine, path)
        if module is not None:
            return module
    module = wasmtime.Module(engine, code)
    if path is not None:
        _store(path, bytes(module.serialize()))
    return module


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


def _load(engine: wasmtime.Engine, path: Path) -> wasmtime.Module | None:
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
        return wasmtime.Module.deserialize(engine, data[32:])
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

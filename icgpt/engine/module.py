"""The engine's module: where it lies, and how it is compiled.

It is the canister's engine built for a program that runs it itself: no meter, and kernels that are
made for the clock. A 32-bit memory gets all of its address space at once with a guard behind it, so
no access is checked in software and the memory never moves.
"""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import Final

import wasmtime

from icgpt import compiled
from icgpt.built import find_built
from icgpt.errors import IcgptError

FILE_NAME: Final = "engine.wasm.gz"
RESERVED: Final = 1 << 32


def find_engine() -> Path:
    """The module's path; raises where it was not built."""
    path = find_built(FILE_NAME)
    if path is None:
        raise IcgptError("the engine's module is not built yet", "Run ./scripts/build-canister.")
    return path


@cache
def runtime() -> wasmtime.Engine:
    """The runtime of all instances, made when it is first needed."""
    config = wasmtime.Config()
    config.memory_reservation = RESERVED
    config.memory_may_move = False
    return wasmtime.Engine(config)


@cache
def load_module() -> wasmtime.Module:
    """The compiled module."""
    path = find_engine()
    try:
        code = gzip.decompress(path.read_bytes())
        return compiled.compile_module(runtime(), code)
    except (OSError, EOFError, wasmtime.WasmtimeError) as error:
        raise IcgptError(
            f"the engine's module {path} can't be used: {error}", "Run ./scripts/build-canister."
        ) from error

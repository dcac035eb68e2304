"""Modules ready to run: checked, metered, compiled, and kept for a while in case they come again.

The same module is often installed many times: in tests, in upgrades, in several canisters. Compiled
modules are shared between all instances of a process.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

import wasmtime

from icgpt.replica.engine import compile_module
from icgpt.replica.module import Prepared, prepare
from icgpt.replica.weights import Release

KEPT = 4


@dataclass(frozen=True)
class Loaded:
    """A module and what is known of it. The metered code itself is not needed any more."""

    prepared: Prepared
    module: wasmtime.Module


_Key = tuple[bytes, tuple[int, ...], tuple[int, ...], tuple[int, ...], int, int]
_loaded: OrderedDict[_Key, Loaded] = OrderedDict()
_lock = threading.Lock()


def load(upload: bytes, release: Release) -> Loaded:
    """Make a module ready, under the weights of a release; raises `InvalidModule`."""
    digest = hashlib.sha256(upload).digest()
    tables = (release.scalar, release.bulk, release.vector)
    key = (digest, *tables, release.function_entry, release.limits.method_names)
    with _lock:
        known = _loaded.get(key)
        if known is not None:
            _loaded.move_to_end(key)
            return known
    prepared = prepare(upload, release)
    module = compile_module(prepared.metered.code)
    loaded = Loaded(replace(prepared, metered=replace(prepared.metered, code=b"")), module)
    with _lock:
        _loaded[key] = loaded
        while len(_loaded) > KEPT:
            _loaded.popitem(last=False)
    return loaded

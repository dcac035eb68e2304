"""Ties the methods of `SystemApi` to a linker, as raw callbacks.

Wasmtime's own Python wrapper takes 5 microseconds for each host call; a bare ctypes callback that
reads and writes the argument slots itself takes a tenth of it. An exception must never leave such a
callback: it is kept in `SystemApi.failure`, and the Wasm code is unwound by a wasmtime trap.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from icgpt.replica import errors, ic0
from icgpt.replica.engine import engine
from icgpt.replica.system_api import SystemApi
from icgpt.replica.system_base import SETTLE_AT
from icgpt.replica.wasm import I32
from icgpt.replica.weights import Release

# (env, caller, slots of 16 bytes for arguments and results, their number) -> trap or null
_Raw = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_int64),
    ctypes.c_size_t,
)
_NO_FINALIZER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(0)
_VALUE_TYPES = {"i32": wasmtime.ValType.i32, "i64": wasmtime.ValType.i64}
_UNWIND = b"stopped by the host"

Handler = Callable[..., int | None]


def _unwind(api: SystemApi, error: BaseException) -> int:
    api.failure = error
    trap = ffi.wasmtime_trap_new(ctypes.create_string_buffer(_UNWIND), len(_UNWIND))
    return ctypes.cast(trap, ctypes.c_void_p).value or 0


def _raw(api: SystemApi, signature: ic0.Signature, charge: int) -> Any:
    """A callback that charges, checks the kind of message, and calls the method.

    Slots are 16 bytes apart and hold whatever was above a 32-bit number, hence the masks. Calls of
    up to three arguments are spelled out: they are made most often.
    """
    handler: Handler = getattr(api, signature.name)
    allowed = signature.modes
    masks = [(1 << 32) - 1 if t == I32 else (1 << 64) - 1 for t in signature.type.params]
    gives = bool(signature.type.results)
    count = len(masks)
    first, second, third = (*masks, 0, 0, 0)[:3]
    places = tuple((2 * i, mask) for i, mask in enumerate(masks))

    # Any exception at all has to be caught: there is Wasm code below this frame.
    def callback(_env: int, _caller: int, slots: Any, _count: int) -> int:
        try:
            api.waiting += charge
            if api.waiting >= SETTLE_AT:
                api.settle()
            if api.mode not in allowed:
                raise errors.wrong_mode(signature.name, api.mode_name)
            if count == 3:
                result = handler(slots[0] & first, slots[2] & second, slots[4] & third)
            elif count == 0:
                result = handler()
            elif count == 1:
                result = handler(slots[0] & first)
            elif count == 2:
                result = handler(slots[0] & first, slots[2] & second)
            else:
                result = handler(*[slots[i] & mask for i, mask in places])
            if gives:
                slots[0] = result
        except BaseException as error:  # noqa: BLE001
            return _unwind(api, error)
        return 0

    return _Raw(callback)


class Binding:
    """A linker with all system calls of one `SystemApi`; keeps its callbacks alive."""

    def __init__(self, api: SystemApi, release: Release) -> None:
        self.linker = wasmtime.Linker(engine())
        self._callbacks = []
        for signature in ic0.SIGNATURES.values():
            callback = _raw(api, signature, release.call(signature.name))
            self._callbacks.append(callback)
            params, results = (
                [_VALUE_TYPES["i32" if t == I32 else "i64"]() for t in types]
                for types in (signature.type.params, signature.type.results)
            )
            kind = wasmtime.FuncType(params, results)
            name = signature.name.encode()
            error = ffi.wasmtime_linker_define_func_unchecked(
                self.linker.ptr(),
                *(ctypes.create_string_buffer(b"ic0"), 3),
                *(ctypes.create_string_buffer(name), len(name)),
                kind.ptr(),
                ctypes.cast(callback, ffi.wasmtime_func_unchecked_callback_t),
                None,
                _NO_FINALIZER,
            )
            if error:
                raise wasmtime.WasmtimeError._from_ptr(error)

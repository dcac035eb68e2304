"""A live instance of a canister's module: run functions, read and set its counter and globals.

The instance stays alive between messages. Calls into wasmtime go through its C interface directly,
because its Python objects cost more than a short message does.
"""

from __future__ import annotations

import ctypes
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from icgpt.replica import errors, heap, metering
from icgpt.replica.binding import Binding
from icgpt.replica.engine import engine
from icgpt.replica.errors import Trap
from icgpt.replica.folder import SavedGlobal
from icgpt.replica.messages import Callback
from icgpt.replica.module import Prepared
from icgpt.replica.system_api import SystemApi
from icgpt.replica.weights import SLICE_LIMIT

MAX_TABLE_ELEMENTS = 1_000_000

_FUNCTION, _GLOBAL, _TABLE = 0, 1, 2  # kinds of exports
_I32, _I64, _FUNCREF = 0, 1, 5  # kinds of values
_SIZES = (4, 8, 4, 8, 16)  # bytes that count of a value, by its kind
_VALUE_OFFSET = ffi.wasmtime_val_t.of.offset

# The library's functions without the wrapper's argument types: addresses and numbers suffice.
_global_get = ffi.dll["wasmtime_global_get"]
_global_set = ffi.dll["wasmtime_global_set"]
_func_call = ffi.dll["wasmtime_func_call"]
_global_get.argtypes = (ctypes.c_void_p,) * 3
_global_get.restype = None
_global_set.argtypes = (ctypes.c_void_p,) * 3
_global_set.restype = ctypes.c_void_p
_func_call.argtypes = (
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
)
_func_call.restype = ctypes.c_void_p

_TRAPS = {
    0: "stack overflow",
    1: "heap out of bounds",
    3: "table out of bounds",
    4: "indirect call to a null table entry",
    5: "function signature mismatch",
    6: "integer overflow",
    7: "integer division by 0",
    8: "failed conversion of a float to an integer",
    9: "unreachable",
}


class Instance:
    """One instantiation over a heap file, at its committed state or, for a new one, empty."""

    def __init__(
        self,
        module: wasmtime.Module,
        prepared: Prepared,
        binding: Binding,
        api: SystemApi,
        heap_file: tuple[int, int],
    ) -> None:
        self._api = api
        self._store = wasmtime.Store(engine())
        self._store.set_limits(table_elements=MAX_TABLE_ELEMENTS, tables=1)
        self._context = ctypes.cast(self._store._context(), ctypes.c_void_p).value
        self._functions: dict[str, Any] = {}
        heap.expect(*heap_file)
        try:
            instance = binding.linker.instantiate(self._store, module)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            self._store.close()
            if heap_file[1]:  # it could be instantiated before
                raise
            raise _from_wasmtime(error) from None
        self._instance = instance
        self.heap = heap.made()
        counter = self._export(metering.COUNTER, _GLOBAL)
        if counter is None:
            raise RuntimeError("the module has no instruction counter; metering gives it one")
        self._counter = counter.of.global_
        self._counter_at = ctypes.addressof(self._counter)
        self._value = ffi.wasmtime_val_t()
        self._value_at = ctypes.addressof(self._value)
        self._number = ctypes.c_int64.from_address(self._value_at + _VALUE_OFFSET)
        self._globals = [
            (index, self._export(f"{metering.GLOBAL}{index}", _GLOBAL).of.global_)
            for index in prepared.metered.saved_globals
        ]
        self._table = self._export(metering.TABLE, _TABLE)
        if heap_file[1]:
            self.heap.rollback()  # data segments were laid over the committed pages
        else:
            self.heap.commit(
                self.heap.stage()
            )  # so that what messages touch can be told from data segments

    def close(self) -> None:
        """Drop the instance and its memory."""
        self._functions.clear()
        self._store.close()

    # -- counter and globals -------------------------------------------------------------------

    def counter(self) -> int:
        """What the message may still use, as the module knows it."""
        _global_get(self._context, self._counter_at, self._value_at)
        return self._number.value

    def set_counter(self, value: int) -> None:
        """Set what the message may still use."""
        self._value.kind = _I64
        self._number.value = value
        _global_set(self._context, self._counter_at, self._value_at)

    def save_globals(self) -> tuple[SavedGlobal, ...]:
        """All mutable globals, bit for bit."""
        out = []
        value = ffi.wasmtime_val_t()
        at = ctypes.addressof(value)
        for index, item in self._globals:
            _global_get(self._context, ctypes.addressof(item), at)
            kind = int(value.kind)
            raw = ctypes.string_at(at + _VALUE_OFFSET, _SIZES[kind])
            out.append((index, kind, raw.ljust(16, b"\0")))
        return tuple(out)

    def restore_globals(self, saved: tuple[SavedGlobal, ...]) -> None:
        """Set the mutable globals to what `save_globals` gave."""
        known = dict(self._globals)
        for index, kind, raw in saved:
            value = ffi.wasmtime_val_t()
            value.kind = kind
            ctypes.memmove(ctypes.addressof(value) + _VALUE_OFFSET, raw, 16)
            error = _global_set(
                self._context, ctypes.addressof(known[index]), ctypes.addressof(value)
            )
            if error:
                raise RuntimeError("the saved globals are not those of the module")

    # -- running -------------------------------------------------------------------------------

    def run(self, name: str) -> None:
        """Run an exported function; raises `Trap`."""
        function = self._functions.get(name)
        if function is None:
            export = self._export(name, _FUNCTION)
            if export is None:
                raise errors.engine_error(f"the export '{name}' is missing")
            function = self._functions[name] = export.of.func
        self._call(function, None)

    def run_callback(self, callback: Callback) -> None:
        """Run a function of the module's table with its environment; raises `Trap`."""
        value = ffi.wasmtime_val_t()
        found = self._table is not None and ffi.wasmtime_table_get(
            self._store._context(),
            ctypes.byref(self._table.of.table),
            callback.function,
            ctypes.byref(value),
        )
        if not found or value.kind != _FUNCREF or not value.of.funcref.store_id:
            raise errors.no_function(callback.function)
        argument = ffi.wasmtime_val_t()
        argument.kind = _I32
        argument.of.i32 = ctypes.c_int32(callback.env).value
        function = ffi.wasmtime_func_t.from_buffer_copy(value.of.funcref)
        self._call(function, argument)

    def _call(self, function: Any, argument: Any) -> None:
        trap = ctypes.c_void_p()
        error = _func_call(
            self._context,
            ctypes.addressof(function),
            ctypes.addressof(argument) if argument is not None else None,
            0 if argument is None else 1,
            None,
            0,
            ctypes.addressof(trap),
        )
        if not error and not trap.value:
            return
        failure = self._failure(error or 0, trap.value)
        asked, self._api.failure = self._api.failure, None
        if asked is not None:
            raise asked
        left = self.counter()
        if left <= metering.SLICE_OVERRUN // 2:
            self.set_counter(0)
            raise errors.slice_overrun(SLICE_LIMIT)
        if left < 0:
            raise errors.instruction_limit(self._api.limit)
        raise failure

    @staticmethod
    def _failure(error: int, trap: int | None) -> Trap:
        if trap:
            code = ffi.wasmtime_trap_code_t()
            pointer = ctypes.cast(trap, ctypes.POINTER(ffi.wasm_trap_t))
            known = ffi.wasmtime_trap_code(pointer, ctypes.byref(code))
            ffi.wasm_trap_delete(pointer)
            return errors.trapped(_TRAPS.get(code.value, "unknown") if known else "unknown")
        pointer = ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t))
        return _from_wasmtime(wasmtime.WasmtimeError._from_ptr(pointer))

    def _export(self, name: str, kind: int) -> Any:
        raw = name.encode()
        item = ffi.wasmtime_extern_t()
        found = ffi.wasmtime_instance_export_get(
            self._store._context(),
            ctypes.byref(self._instance._instance),
            ctypes.create_string_buffer(raw, len(raw) + 1),
            len(raw),
            ctypes.byref(item),
        )
        return item if found and item.kind == kind else None


def _from_wasmtime(error: Exception) -> Trap:
    """A failure of instantiation or of a call that is no trap of running code."""
    if isinstance(error, wasmtime.Trap):
        code = error.trap_code
        return errors.trapped(_TRAPS.get(code.value, "unknown") if code is not None else "unknown")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return errors.engine_error(lines[-1][:200] if lines else "unknown")

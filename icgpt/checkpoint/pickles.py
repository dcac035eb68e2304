"""Pickles read as data: nothing that they name is imported, nothing that they ask for is called.

A pickle is a program for a stack machine. Here its steps are taken one by one, and where Python's
own reader would import a class or call a function, a `Foreign` stands in its place that says what
was asked for. What tensors are made of (storages, shapes, strides) is understood; that is all that
a state dict needs. https://docs.python.org/3/library/pickletools.html
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final

from icgpt.errors import CheckpointError, quoted

MAX_STEPS: Final = 500_000


@dataclass(frozen=True)
class Global:
    """A name that a pickle asks for; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Foreign:
    """An object of a class that we don't know, as far as its pickle tells."""

    kind: Global
    arguments: Any = ()
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """A stretch of numbers in the file."""

    dtype: str
    """By torch's name, such as "float32"; "" where the tensor says it."""
    key: str
    length: int


@dataclass(frozen=True)
class PickledTensor:
    """A view of a storage; `offset` and `stride` count elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class PickleError(CheckpointError):
    """A pickle that is damaged, or does what no state dict needs."""


_AGAIN: Final = "Save the model again, as torch.save(model.state_dict(), FILE)."
_MARK: Final = object()
_STORAGES: Final = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "",
}


def read_pickle(file: Any, storages: dict[str, Storage] | None = None) -> Any:
    """What a pickle holds.

    Args:
        file: bytes, or a file that is read up to the pickle's end.
        storages: where every storage that the pickle names is put, by its key.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count == MAX_STEPS:
                raise PickleError("the pickle is longer than any state dict's", _AGAIN)
            machine.step(opcode.name, argument)
    except PickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, UnicodeError, RecursionError) as error:
        raise PickleError(f"the pickle is damaged: {quoted(str(error))}", _AGAIN) from error
    if len(machine.stack) != 1:
        raise PickleError("the pickle is damaged: it ends in the middle", _AGAIN)
    return machine.stack[0]


class _Machine:
    def __init__(self, storages: dict[str, Storage]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _IGNORED:
            pass
        elif (method := _METHODS.get(name)) is not None:
            method(self, argument)
        else:
            raise PickleError(f"the pickle holds a {name}, which no state dict needs", _AGAIN)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def pop_to_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("there is no mark")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("a mark where a value should be")
        return self.stack[-1]

    # --- Steps: (machine, argument of the step)

    def mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def drop(self, _: Any) -> None:
        self.stack.pop()

    def drop_to_mark(self, _: Any) -> None:
        self.pop_to_mark()

    def twice(self, _: Any) -> None:
        self.stack.append(self.top())

    def get(self, index: Any) -> None:
        self.stack.append(self.memo[int(index)])

    def put(self, index: Any) -> None:
        self.memo[int(index)] = self.top()

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.top()

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def collect(self, make: Callable[[list[Any]], Any]) -> None:
        self.stack.append(make(self.pop_to_mark()))

    def extend(self, values: list[Any]) -> None:
        into = self.top()
        if isinstance(into, list):
            into.extend(values)
        elif isinstance(into, set):
            into.update(map(_key, values))
        elif not isinstance(into, Foreign):
            raise ValueError("values for what is no list")

    def set_items(self, values: list[Any]) -> None:
        if len(values) % 2:
            raise ValueError("a key without a value")
        into = self.top()
        if isinstance(into, Foreign):
            into = into.state
        if not isinstance(into, dict):
            raise ValueError("entries for what is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            into[_key(key)] = value

    def named(self, argument: Any) -> None:
        """`argument` is "module name"."""
        module, _, name = str(argument).partition(" ")
        self.stack.append(Global(module, name))

    def named_on_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self.stack.append(Global(module, name))

    def persistent(self, _: Any) -> None:
        match self.pop():
            case ("storage", Global() as kind, str(key), str(), int(length), *rest) if (
                kind.name in _STORAGES and length >= 0 and rest in ([], [None])
            ):
                self.storages[key] = Storage(_STORAGES[kind.name], key, length)
                self.stack.append(self.storages[key])
            case ("module", Global() as kind, *_):  # a class, with its source, before torch 1.6
                self.stack.append(kind)
            case _:
                raise PickleError("the pickle asks for a storage of an unknown kind", _AGAIN)

    def reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        self.stack.append(_made(function, arguments))

    def reduce_with_names(self, _: Any) -> None:
        names, arguments, function = self.pop(), self.pop(), self.pop()
        self.stack.append(_made(function, (arguments, names)))

    def build(self, _: Any) -> None:
        state, into = self.pop(), self.top()
        if isinstance(into, Foreign):
            parts = state if isinstance(state, tuple) else (state,)
            for part in parts:
                if isinstance(part, dict):
                    into.state.update({str(key): value for key, value in part.items()})


def _key(value: Any) -> Hashable:
    # No tuples: the hash of one nested a million deep brings Python down.
    if not isinstance(value, str | int | float | bytes | Global | None):
        raise ValueError("a key that is none")
    return value


def _made(function: Any, arguments: Any) -> Any:
    """What calling `function` would give, of the few functions that make tensors."""
    if not isinstance(function, Global):
        raise ValueError("a call of what has no name")
    if not isinstance(arguments, tuple):
        raise ValueError("a call without arguments")
    match str(function), arguments:
        case "collections.OrderedDict", ():
            return {}
        case "collections.OrderedDict", ([*pairs],):
            return {_key(key): value for key, value in pairs}
        case "torch.Size", (tuple() as shape,):
            return shape
        case "torch._utils._rebuild_tensor_v3", (storage, at, shape, stride, _, _, dtype, *_):
            return _tensor(storage, at, shape, stride, dtype)
        case (
            "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
            (storage, at, shape, stride, *_),
        ):
            return _tensor(storage, at, shape, stride, None)
        case "torch._utils._rebuild_parameter", (PickledTensor() as tensor, *_):
            return tensor
        case "torch._utils._rebuild_parameter_with_state", (PickledTensor() as tensor, *_):
            return tensor
        case "torch._tensor._rebuild_from_type_v2", (Global() as inner, _, tuple() as given, _):
            if inner == function:
                raise ValueError("a call within itself")
            return _made(inner, given)
    return Foreign(function, arguments)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, dtype: Any) -> PickledTensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    numbers = (offset, *shape, *stride)
    if not all(type(one) is int and one >= 0 for one in numbers) or len(shape) != len(stride):
        raise ValueError("a tensor with a malformed shape")
    name = dtype.name if isinstance(dtype, Global) else storage.dtype
    return PickledTensor(storage, name, offset, tuple(shape), tuple(stride))


_CONSTANTS: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_LITERALS: Final = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_IGNORED: Final = frozenset({"PROTO", "FRAME", "STOP"})


def _pairs(values: list[Any]) -> dict[Hashable, Any]:
    if len(values) % 2:
        raise ValueError("a key without a value")
    return {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


_METHODS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_to_mark,
    "DUP": _Machine.twice,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": lambda machine, _: machine.collect(tuple),
    "LIST": lambda machine, _: machine.collect(list),
    "DICT": lambda machine, _: machine.collect(_pairs),
    "FROZENSET": lambda machine, _: machine.collect(lambda values: frozenset(map(_key, values))),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _Machine.named_on_stack,
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.reduce_with_names,
    "BUILD": _Machine.build,
}

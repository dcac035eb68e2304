"""The subnet's state on disk: plain dataclasses as CBOR, old or new but never half written.

`Store` overwrites two files in turn, each with a number and a checksum, because replacing a file by
renaming makes many file systems wait for the disk. A document names its version; one of another
version is refused rather than guessed at. `log` holds what happens between two such writings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import cbor2

from icgpt.replica.pages import write_all

VERSION = 3
ADVICE = "reset the network with `icgpt network reset`"
_SLACK = 1 << 20  # bytes that may lie behind the end of a state in its file
_SCALARS = frozenset({bytes, str, int, bool, float, type(None)})
T = TypeVar("T")


class StateError(Exception):
    """The state on disk can't be read; the text says what to do."""


def pack(value: Any) -> bytes:
    """Encode a dataclass."""
    return cbor2.dumps(_plain(value))


def unpack(data: bytes, kind: type[T]) -> T:
    """Decode what `pack` has encoded; raises StateError."""
    try:
        return typing.cast(T, _typed(cbor2.loads(data), kind))
    except (cbor2.CBORDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"what was written last can't be read ({error}); {ADVICE}") from error


class Store:
    """Two files that are written in turn; the newer whole one counts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._files = (file.with_suffix(".0"), file.with_suffix(".1"))
        self._number = 0
        self._open: list[int] = []
        self.size = 0  # of the last state

    def load(self, kind: type[T]) -> T | None:
        """Read the newest state; None when none was ever written."""
        newest, found = b"", False
        for file in self._files:
            data = file.read_bytes() if file.exists() else b""
            found = found or bool(data)
            number, body = _unseal(data)
            if number > self._number:
                self._number, newest = number, body
        if not newest:
            if found:
                raise StateError(f"{self._file} can't be read (damaged); {ADVICE}")
            return None
        return _read(self._file, newest, kind)

    def save(self, value: Any, *, sync: bool = False) -> None:
        """Write a state over the older one; `sync` waits for the disk."""
        if not self._open:
            flags = os.O_WRONLY | os.O_CREAT
            self._open = [os.open(file, flags, 0o600) for file in self._files]
        number = self._number + 1
        file, data = self._open[number % 2], _seal(number, _document(value))
        write_all(file, memoryview(data), 0)
        if sync:
            os.fsync(file)
        self._number = number  # only now, so that after a failure the good file stays untouched
        self.size = len(data)
        if os.fstat(file).st_size > len(data) + _SLACK:
            os.ftruncate(file, len(data))

    def close(self) -> None:
        """Close the files."""
        while self._open:
            os.close(self._open.pop())


def _seal(number: int, body: bytes) -> bytes:
    head = number.to_bytes(8, "big") + len(body).to_bytes(8, "big")
    return hashlib.sha256(head + body).digest() + head + body


def _unseal(data: bytes) -> tuple[int, bytes]:
    """Return the number and the body; 0 where nothing whole is written."""
    number, length = int.from_bytes(data[32:40], "big"), int.from_bytes(data[40:48], "big")
    body = data[48 : 48 + length]
    if len(data) < 48 + length or hashlib.sha256(data[32:48] + body).digest() != data[:32]:
        return 0, b""
    return number, body


def _document(value: Any) -> bytes:
    return cbor2.dumps({"version": VERSION, "state": _plain(value)})


def _read(file: Path, data: bytes, kind: type[T]) -> T:
    try:
        document = cbor2.loads(data)
        if document["version"] != VERSION:
            raise StateError(f"{file} is of version {document['version']}; {ADVICE}")
        return typing.cast(T, _typed(document["state"], kind))
    except (cbor2.CBORDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"{file} can't be read ({error}); {ADVICE}") from error


_NAMES: dict[type, tuple[str, ...]] = {}


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is list or kind is tuple:
        return [_plain(item) for item in value]
    if kind is dict:
        return {key: _plain(item) for key, item in value.items()}
    names = _NAMES.get(kind)
    if names is None:
        names = _NAMES[kind] = tuple(f.name for f in dataclasses.fields(value))
    return {name: _plain(getattr(value, name)) for name in names}


_HINTS: dict[type, dict[str, Any]] = {}


def _typed(value: Any, kind: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType or origin is typing.Union:
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _typed(value, inner)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _HINTS.get(kind)
        if hints is None:
            hints = _HINTS[kind] = typing.get_type_hints(kind)
        return kind(**{key: _typed(item, hints[key]) for key, item in value.items()})
    if origin is list:
        return [_typed(item, arguments[0]) for item in value]
    if origin is tuple and arguments[-1] is Ellipsis:
        return tuple(_typed(item, arguments[0]) for item in value)
    if origin is tuple:
        return tuple(_typed(item, inner) for item, inner in zip(value, arguments, strict=True))
    if origin is dict:
        return {key: _typed(item, arguments[1]) for key, item in value.items()}
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected, not {type(value).__name__}")
    return value

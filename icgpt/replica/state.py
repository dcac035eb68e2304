"""The subnet's state on disk: plain dataclasses, written as CBOR, replaced in one step.

A file names its version; one of another version is refused rather than guessed at.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import cbor2

from icgpt.replica.files import write_atomically

VERSION = 1
T = TypeVar("T")


class StateError(Exception):
    """The state on disk can't be read; the text says what to do."""


def save(file: Path, value: Any) -> None:
    """Write a dataclass."""
    document = {"version": VERSION, "state": _plain(value)}
    write_atomically(file, cbor2.dumps(document), 0o600)


def load(file: Path, kind: type[T]) -> T | None:
    """Read a dataclass of the given kind back; None when there is no file."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    advice = "reset the network with `icgpt network reset`"
    try:
        document = cbor2.loads(data)
        if document["version"] != VERSION:
            raise StateError(f"{file} is of version {document['version']}; {advice}")
        return typing.cast(T, _typed(document["state"], kind))
    except (cbor2.CBORDecodeError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"{file} can't be read ({error}); {advice}") from error


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {f.name: _plain(getattr(value, f.name)) for f in fields}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


_HINTS: dict[type, dict[str, Any]] = {}


def _typed(value: Any, kind: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType or origin is typing.Union:
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _typed(value, inner)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _HINTS.setdefault(kind, {}) or typing.get_type_hints(kind)
        _HINTS[kind] = hints
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

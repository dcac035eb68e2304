"""What a canister is that the replica plays itself: a table of methods with their Candid types.

Such a canister answers every call at once, so it needs no call contexts; its interface text, which
clients read from its metadata, is written from the same table that decodes their arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from icgpt.candid import NULL, CandidError, Opt, Record, Type, Variant, Vec, decode, encode
from icgpt.candid.types import Fields, Primitive
from icgpt.replica import rejects
from icgpt.replica.rejects import RejectError

MAX_VALUES = 10_000


@dataclass
class Call:
    """Who calls, when, and with how many cycles; what is left of these goes back."""

    caller: bytes
    now: int
    cycles: int = 0


@dataclass(frozen=True)
class Method:
    """A method: its types, and what runs it with the call and the decoded arguments."""

    arguments: tuple[Type, ...]
    results: tuple[Type, ...]
    run: Callable[..., Any]
    query: bool = False


@dataclass(frozen=True)
class Native:
    """A system canister."""

    id: bytes
    name: str
    methods: dict[str, Method]

    def answer(self, call: Call, name: str, arg: bytes, *, query: bool) -> bytes:
        """Run a method; raises RejectError."""
        method = self.methods.get(name)
        if method is None or (query and not method.query):
            kind = "query" if query else "update"
            raise RejectError(rejects.no_method(self.id, kind, name))
        try:
            arguments = decode(arg, method.arguments, max_values=MAX_VALUES)
        except CandidError as error:
            raise RejectError(rejects.trapped(self.id, f"failed to decode: {error}")) from error
        result = method.run(call, *arguments)
        return encode(method.results, [result] if method.results else [])

    @property
    def interface(self) -> str:
        """The service in Candid's text form."""
        lines = [
            f"  {name} : ({_listed(method.arguments)}) -> ({_listed(method.results)})"
            f"{' query' if method.query else ''};\n"
            for name, method in self.methods.items()
        ]
        return "service : {\n" + "".join(lines) + "}\n"


def _listed(kinds: Sequence[Type]) -> str:
    return ", ".join(map(written, kinds))


def written(kind: Type) -> str:
    """Return a type in Candid's text form."""
    match kind:
        case Primitive():
            return kind.name
        case Opt():
            return f"opt {written(kind.inner)}"
        case Vec():
            return f"vec {written(kind.inner)}"
        case Record() | Variant():
            word = "record" if isinstance(kind, Record) else "variant"
            return f"{word} {{ {_fields(kind)} }}"
    raise TypeError(f"{kind} is in no interface here")


def _fields(kind: Fields) -> str:
    shown = []
    for _, key, inner in kind.fields:
        name = str(key) if isinstance(key, int) else f'"{key}"'
        bare = isinstance(kind, Variant) and inner == NULL
        shown.append(name if bare else f"{name} : {written(inner)}")
    return "; ".join(shown)

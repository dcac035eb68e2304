"""The table of methods against `canister/model/model.did`, type by type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from model_kit import ROOT

from icgpt import candid, interface
from icgpt.candid import BLOB, Opt, Record, Type, Variant, Vec

TOKEN = re.compile(r"//[^\n]*|\s+|(\w+|->|[(){}:;,=])")
DECLARED = (ROOT / "canister" / "model" / "model.did").read_text()


class Did:
    """Reads as much of the Candid language as our interface uses."""

    def __init__(self, text: str) -> None:
        self.tokens = [found[1] for found in TOKEN.finditer(text) if found[1]]
        self.place = 0
        self.named: dict[str, Type] = {}
        self.methods: dict[str, interface.Method] = {}
        while self.take("type"):
            name = self.next()
            self.expect("=")
            self.named[name] = self.type()
            self.expect(";")
        self.expect("service")
        self.expect(":")
        self.expect("{")
        for name in self.items():
            self.expect(":")
            arguments = self.tuple()
            self.expect("->")
            results = self.tuple()
            self.methods[name] = interface.Method(arguments, results, self.take("query"))
            self.expect(";")
        assert self.place == len(self.tokens)

    def next(self) -> str:
        self.place += 1
        return self.tokens[self.place - 1]

    def take(self, token: str) -> bool:
        found = self.place < len(self.tokens) and self.tokens[self.place] == token
        self.place += found
        return found

    def expect(self, token: str) -> None:
        assert self.take(token), (token, self.tokens[self.place : self.place + 5])

    def items(self) -> Iterator[str]:
        """Names up to the closing brace; whoever iterates reads what follows each."""
        while not self.take("}"):
            yield self.next()

    def tuple(self) -> tuple[Type, ...]:
        self.expect("(")
        kinds: list[Type] = []
        while not self.take(")"):
            kinds.append(self.type())
            self.take(",")
        return tuple(kinds)

    def type(self) -> Type:
        word = self.next()
        if word == "vec":
            return Vec(self.type())
        if word == "opt":
            return Opt(self.type())
        if word in ("record", "variant"):
            fields: dict[Any, Type] = {}
            self.expect("{")
            for place, name in enumerate(self.items()):
                if word == "record" and not self.take(":"):
                    fields[place] = getattr(candid, name.upper())  # a tuple of plain types
                else:
                    plain = word == "variant" and not self.take(":")
                    fields[name] = candid.NULL if plain else self.type()
                self.take(";")
            return Record(fields) if word == "record" else Variant(fields)
        if word == "blob":
            return BLOB
        if word in self.named:
            return self.named[word]
        kind = getattr(candid, word.upper())
        assert isinstance(kind, Type)
        return kind


def test_every_method_has_the_types_of_the_interface() -> None:
    declared = Did(DECLARED).methods
    assert interface.METHODS.keys() == declared.keys()
    for name, method in interface.METHODS.items():
        assert method == declared[name], name


def test_the_reader_tells_types_apart() -> None:
    changed = DECLARED.replace("n_layer : nat32", "n_layer : nat64")
    assert changed != DECLARED
    assert Did(changed).methods["model_info"] != interface.METHODS["model_info"]

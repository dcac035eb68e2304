"""Reads the expressions by which canisters say what of a response they have certified.

A small part of the Common Expression Language: calls `f(...)`, records `Name{key: value}`, lists
and texts. Calls and records become `Node`s, lists become lists.
See https://internetcomputer.org/docs/references/http-gateway-protocol-spec#certificate-expression.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

MAX_TOKENS = 5_000
MAX_DEPTH = 30
_TOKEN = re.compile(r'\s*("[^"\\]*"|[A-Za-z_][A-Za-z0-9_]*|[(){}\[\],:])')


class CelError(ValueError):
    """A text that is no expression of this kind."""


@dataclass(frozen=True)
class Node:
    """A call, with its arguments in `items`, or a record, with its entries in `fields`."""

    name: str
    items: tuple[Any, ...]
    fields: dict[str, Any]


def parse(text: str) -> Any:
    """Read one expression."""
    words: list[str] = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None or len(words) >= MAX_TOKENS:
            raise CelError(f"unexpected {text[at : at + 20]!r}")
        words.append(found[1])
        at = found.end()
    reader = _Reader(words)
    value = reader.value(0)
    if reader.at != len(words):
        raise CelError("more than one expression")
    return value


class _Reader:
    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.at = 0

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self) -> str:
        word = self.peek()
        if not word:
            raise CelError("the expression ends early")
        self.at += 1
        return word

    def expect(self, word: str) -> None:
        if self.take() != word:
            raise CelError(f"{word} is expected")

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise CelError("nested too deeply")
        word = self.take()
        if word.startswith('"'):
            return word[1:-1]
        if word == "[":
            return self.listed("]", depth)
        if not word[0].isalpha() and word[0] != "_":
            raise CelError(f"unexpected {word}")
        if self.peek() == "(":
            self.take()
            return Node(word, tuple(self.listed(")", depth)), {})
        self.expect("{")
        return Node(word, (), self.entries(depth))

    def listed(self, end: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while self.peek() != end:
            items.append(self.value(depth + 1))
            if self.peek() != end:
                self.expect(",")
        self.take()
        return items

    def entries(self, depth: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        while self.peek() != "}":
            key = self.take()
            self.expect(":")
            if key in fields:
                raise CelError(f"{key} is given twice")
            fields[key] = self.value(depth + 1)
            if self.peek() != "}":
                self.expect(",")
        self.take()
        return fields

"""docs/reference/candid.md, from canister/model/model.did: methods and types with comments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DID = Path(__file__).resolve().parents[2] / "canister" / "model" / "model.did"
HEAD = """\
# The canister's interface

Made from [model.did](../../canister/model/model.did) by `scripts/reference`; change that file, not
this page. Methods come first, then the types, in alphabetical order. Queries are answered by one
node and cost nothing; the others are update calls. A method that can refuse answers with `Err` and
the reason, and nothing has changed then. What each caller may do is in [who may use a
canister](../how-to/access.md), the fields of `Options` are in [options](../options.md), and the
same methods in Python are in [the Python reference](python.md).
"""


@dataclass
class Entry:
    """A method or a type."""

    name: str
    comment: str
    text: str


def page() -> str:
    """The page."""
    head, _, service = DID.read_text().partition("service : {")
    types = _types(head)
    names = {entry.name for entry in types}
    parts = [HEAD]
    for title, methods in _groups(service):
        parts.append(f"## {title}\n")
        parts += [_shown(method, names) for method in methods]
    parts.append("## Types\n")
    parts += [_shown(entry, names) for entry in sorted(types, key=lambda one: one.name.lower())]
    return "\n".join(parts)


def _shown(entry: Entry, types: set[str]) -> str:
    used = re.findall(r"\w+", re.sub(r"//.*", "", entry.text))
    links = [f"[{name}](#type-{name.lower()})" for name in dict.fromkeys(used) if name in types]
    links = [link for link in links if not link.startswith(f"[{entry.name}]")]
    is_type = entry.text.startswith("type ")
    lines = ["### " + ("type " if is_type else "") + entry.name, ""]
    if entry.comment:
        lines += [entry.comment, ""]
    lines += ["```candid", entry.text, "```", ""]
    if links:
        lines += [f"Types: {', '.join(links)}", ""]
    return "\n".join(lines)


def _types(text: str) -> list[Entry]:
    """The type definitions, each up to the semicolon behind its last brace."""
    found: list[Entry] = []
    comment: list[str] = []
    body: list[str] = []
    for line in text.splitlines():
        if not body and not line.startswith("type "):
            comment = [*comment, line] if line.startswith("//") else []
            continue
        body.append(line)
        code = re.sub(r"//.*", "", "\n".join(body))
        if code.count("{") == code.count("}") and code.rstrip().endswith(";"):
            name = body[0].split()[1]
            found.append(Entry(name, _words("\n".join(comment)), "\n".join(body)))
            comment, body = [], []
    return found


def _groups(service: str) -> list[tuple[str, list[Entry]]]:
    """The methods under each `// --- heading.`."""
    groups: list[tuple[str, list[Entry]]] = []
    comment: list[str] = []
    for line in service.splitlines():
        line = line.strip()
        if line.startswith("// ---"):
            groups.append((line.removeprefix("// ---").strip(" ."), []))
        elif line.startswith("//"):
            comment.append(line)
        elif match := re.match(r"(\w+) : .*;$", line):
            groups[-1][1].append(Entry(match[1], _words("\n".join(comment)), line))
            comment = []
    return groups


def _words(comment: str) -> str:
    return "\n".join(line.strip().removeprefix("//").strip() for line in comment.splitlines())

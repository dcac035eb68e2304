"""Reads the documentation: its fenced blocks with the marks before them, its headings, its links.

A mark is an HTML comment on a line of its own, so readers don't see it:
  needs: network model   what the whole page takes for given (doc_project.py makes it)
  file: NAME             the block is the content of that file
  status: 4              the block's last command ends with this exit code
  run by: FILE::TEST     another test runs the block
  not run: THING         it can't be run here; docs/unproven.md has a line on THING
  signature              generated: how something is called, not a call
A `text` block right behind a block that is run is what it prints; … stands for anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from model_kit import ROOT

RUN = ("bash", "python")
SHOWN = ("text", "json", "toml", "candid", "ini", "yaml")
_MARK = re.compile(r"<!-- (needs|file|status|run by|not run|signature)(?:: (.*?))? -->")
_FENCE = re.compile(r"```(\w*)$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    line: int
    language: str
    code: str
    marks: dict[str, str]
    printed: str | None = None
    """What it prints, where the page says it."""

    @property
    def runs(self) -> bool:
        """Whether this block is run by the page's own test."""
        return (
            self.language in RUN
            and "file" not in self.marks
            and not {"run by", "not run", "signature"} & set(self.marks)
        )


@dataclass
class Page:
    """A page of the documentation."""

    path: Path
    blocks: list[Block] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    prose: list[tuple[int, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The path from the root of the repository."""
        return str(self.path.relative_to(ROOT))

    def anchors(self) -> set[str]:
        """The anchors that a code host gives the headings."""
        seen: dict[str, int] = {}
        found = set()
        for heading in self.headings:
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.lower())
            slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            count = seen.get(slug, 0)
            seen[slug] = count + 1
            found.add(f"{slug}-{count}" if count else slug)
        return found


def pages() -> list[Page]:
    """README.md and everything in docs/."""
    return [read(ROOT / "README.md"), *map(read, sorted((ROOT / "docs").rglob("*.md")))]


def read(path: Path) -> Page:
    """Reads a page."""
    page = Page(path)
    lines = path.read_text().splitlines()
    marks: dict[str, str] = {}
    follows = False  # nothing but empty lines since the last block
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if (fence := _FENCE.match(line.strip())) and line.startswith("```"):
            end = next((n for n in range(number, len(lines)) if lines[n] == "```"), None)
            assert end is not None, f"{path}:{number}: the block is not closed"
            code = "\n".join(lines[number:end]) + "\n"
            block = Block(number, fence[1], code, marks)
            if block.language == "text" and follows and not marks and page.blocks[-1].runs:
                last = page.blocks[-1]
                page.blocks[-1] = Block(last.line, last.language, last.code, last.marks, code)
            else:
                page.blocks.append(block)
            number, marks, follows = end + 1, {}, True
        elif mark := _MARK.fullmatch(line.strip()):
            if mark[1] == "needs":
                page.needs += mark[2].split()
            else:
                marks = {**marks, mark[1]: mark[2] or ""}
        elif line.strip():
            assert not marks, f"{path}:{number}: a mark that belongs to no block"
            follows = False
            page.prose.append((number, line))
            if line.startswith("#"):
                page.headings.append(line.lstrip("#").strip())
    text = re.sub(r"`[^`\n]*`", lambda code: "`" * len(code[0]), _joined(page.prose))
    page.links = _LINK.findall(text)
    return page


def _joined(prose: list[tuple[int, str]]) -> str:
    return "\n".join(line for _, line in prose)

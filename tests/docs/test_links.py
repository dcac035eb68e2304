"""Links of the documentation lead somewhere: files, headings, and the paths that it names."""

from __future__ import annotations

import os
import re

import pytest
from doc_pages import Page, pages, read
from model_kit import ROOT

PAGES = pages()
_NAMED = re.compile(r"`((?:tests|icgpt|scripts|docs|canister)/[\w./-]+)(?:::\w+)?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Page) -> None:
    for link in page.links:
        if re.match(r"(https?|mailto):", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.is_relative_to(ROOT), link
        assert path.exists(), link
        if anchor:
            assert anchor in read(path).anchors(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_paths(page: Page) -> None:
    for _, line in page.prose:
        for name in _NAMED.findall(line):
            built = name.startswith("canister/build")
            assert built or (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_scripts(page: Page) -> None:
    for name in re.findall(r"\./(scripts/[\w-]+)", page.path.read_text()):
        assert os.access(ROOT / name, os.X_OK), name


def test_every_page_is_found() -> None:
    """From the README, link by link."""
    found = {ROOT / "README.md"}
    todo = list(found)
    while todo:
        page = read(todo.pop())
        for link in page.links:
            path = (page.path.parent / link.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.is_file() and path not in found:
                found.add(path)
                todo.append(path)
    assert {page.path for page in PAGES} <= found

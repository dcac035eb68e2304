"""Every example of the README and of docs/ is run, page by page, against a local network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_pages import RUN, SHOWN, Page, pages
from doc_project import NEEDS, DocProject, matches
from model_kit import ROOT

PAGES = pages()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.runs for b in page.blocks)], ids=lambda page: page.name
)
def test_examples(page: Page, tmp_path: Path) -> None:
    project = DocProject(tmp_path)
    try:
        for need in page.needs:
            project.need(need)
        for block in page.blocks:
            if "file" in block.marks:
                project.put(block.marks["file"], block.code)
            elif block.runs:
                project.run(block, page.name)
    finally:
        project.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marks(page: Page) -> None:
    """What a page's own test doesn't run is run by another, or stands in docs/unproven.md."""
    unproven = (ROOT / "docs" / "unproven.md").read_text()
    things = {row.strip("` ").lower() for row in re.findall(r"^\| (.*?) \|", unproven, re.M)}
    assert set(page.needs) <= set(NEEDS)
    for block in page.blocks:
        where = f"{page.name}:{block.line}"
        assert block.language in (*RUN, *SHOWN), f"{where}: a block in no known language"
        if "not run" in block.marks:
            assert block.marks["not run"].lower() in things, f"{where}: no line in unproven.md"
        if "run by" in block.marks:
            file, test = block.marks["run by"].split("::")
            assert f"def {test}(" in (ROOT / file).read_text(), where
        if "signature" in block.marks:
            assert page.name.startswith("docs/reference/"), where
        if "file" in block.marks:
            assert not Path(block.marks["file"]).is_absolute(), where


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_is_fenced(page: Page) -> None:
    """So that no example is overlooked."""
    for number, line in page.prose:
        assert not re.match(r" {4}\S", line), f"{page.name}:{number}: code without a fence"


def test_what_is_printed_is_compared() -> None:
    assert matches("a\n", "a  \n\n")
    assert matches("a…c", "a\nb\nc")
    assert matches("…", "")
    assert not matches("a", "a\nb")
    assert not matches("a…c.", "a\nb\nc!")

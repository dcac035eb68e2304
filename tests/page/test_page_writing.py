"""The page in a real browser, asking a canister: text, figures, Stop, and what is kept."""

from __future__ import annotations

from typing import Any

import pytest
from browser_kit import opened_page
from page_kit import DESKTOP, SECONDS, ended, write

from icgpt.client import ModelCanister


@pytest.fixture
def page(chromium: Any, site: str) -> Any:
    with opened_page(chromium, site, viewport=DESKTOP) as opened:
        yield opened


def test_a_text_is_written_as_the_canister_gives_it(page: Any, shakespeare: ModelCanister) -> None:
    page.get_by_role("button", name="More options").click()
    page.get_by_label("Seed", exact=True).fill("7")
    write(page, "ROMEO:")
    run = ended(page, "ended at its length")
    told = shakespeare.complete("ROMEO:", max_new_tokens=300, temperature=0.7, seed=7)
    assert run.locator("[data-text]").inner_text() == "ROMEO:" + (told.text or "")
    figures = run.locator("[data-figures]").inner_text()
    assert all(word in figures for word in ("300 tokens", "instructions", "cycles", "seed 7"))


def test_stop_ends_the_job_and_keeps_the_text(page: Any) -> None:
    length = page.get_by_role("slider", name="Length")
    length.focus()
    length.press("End")
    write(page, "JULIET:")
    page.locator("article[data-run=writing]").wait_for(timeout=SECONDS)
    page.get_by_role("button", name="Stop").click()
    run = ended(page, "stopped")
    assert run.locator("[data-text]").inner_text().startswith("JULIET:")
    page.get_by_role("button", name="Write", exact=True).wait_for(timeout=SECONDS)

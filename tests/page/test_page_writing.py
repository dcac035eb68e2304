"""The page in a real browser, asking a canister: text, figures, Stop, and what is kept."""

from __future__ import annotations

import re
from typing import Any

import pytest
from browser_kit import opened_page
from page_kit import DESKTOP, SECONDS, ended, ended_job, write

from icgpt.client import ModelCanister


@pytest.fixture
def page(chromium: Any, site: str) -> Any:
    clipboard = ["clipboard-read", "clipboard-write"]
    with opened_page(chromium, site, viewport=DESKTOP, permissions=clipboard) as opened:
        yield opened


def write_at_length(page: Any, prompt: str) -> None:
    """Has as much written as can be, and comes back when it has begun."""
    page.get_by_role("slider", name="Length").press("End")
    write(page, prompt)
    begun = page.locator("article[data-run=writing] [data-figures]", has_text="tokens")
    begun.wait_for(timeout=SECONDS)


def test_a_text_is_written_as_the_canister_gives_it(page: Any, shakespeare: ModelCanister) -> None:
    page.get_by_role("button", name="More options").click()
    page.get_by_label("Seed", exact=True).fill("7")
    write(page, "ROMEO:")
    run = ended(page, "ended at its length")
    told = shakespeare.complete("ROMEO:", max_new_tokens=300, temperature=0.7, seed=7)
    assert run.locator("[data-text]").inner_text() == "ROMEO:" + (told.text or "")
    figures = run.locator("[data-figures]").inner_text()
    assert all(word in figures for word in ("300 tokens", "instructions", "cycles", "seed 7"))
    card = page.get_by_role("region", name="Model")
    card.get_by_text(re.compile(r"^Cycles left[\d.,]+ trillion$")).wait_for(timeout=SECONDS)
    card.get_by_text(re.compile(r"^Memory[\d.]+ MB$")).wait_for(timeout=SECONDS)
    run.get_by_role("button", name="Copy the text").click()
    page.get_by_text("The text is copied.").first.wait_for(timeout=SECONDS)
    assert page.evaluate("navigator.clipboard.readText()") == "ROMEO:" + (told.text or "")


def test_stop_ends_the_job_and_keeps_the_text(page: Any) -> None:
    write_at_length(page, "JULIET:")
    page.get_by_role("button", name="Stop").click()
    run = ended(page, "stopped")
    assert run.locator("[data-text]").inner_text().startswith("JULIET:")
    page.get_by_role("button", name="Write", exact=True).wait_for(timeout=SECONDS)


def test_who_leaves_takes_the_job_along(page: Any, shakespeare: ModelCanister) -> None:
    write_at_length(page, "NURSE:")
    page.goto("about:blank")
    page.go_back()
    run = ended(page, "stopped")
    assert run.locator("[data-text]").inner_text().startswith("NURSE:")
    (kept,) = page.evaluate("JSON.parse(localStorage.getItem('icgpt.runs'))")
    done = ended_job(shakespeare, bytes.fromhex(kept["job"]))
    assert (done.finish, len(done.token_ids) < 1000) == ("cancelled", True)
    assert (done.text or "").startswith(kept["text"])


def test_clearing_cancels_what_is_written(page: Any) -> None:
    def cancels(request: Any) -> bool:
        return request.method == "POST" and b"cancel" in (request.post_data_buffer or b"")

    write_at_length(page, "TYBALT:")
    with page.expect_response(lambda answer: cancels(answer.request), timeout=SECONDS) as answer:
        page.get_by_role("button", name="Clear all").click()
    assert answer.value.ok
    assert page.locator("article").count() == 0
    page.get_by_role("button", name="Write", exact=True).wait_for(timeout=SECONDS)

"""A model with a template: questions and answers in their order, each turn with what was said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from browser_kit import opened_page
from instruct import instruct_tokenizer
from model_kit import MakeCanister, tiny_config, with_model, write_model
from page_kit import DESKTOP, SECONDS

from icgpt.chat import Conversation
from icgpt.client import ModelCanister


@pytest.fixture(scope="module")
def instruct(new_canister: MakeCanister, tmp_path_factory: pytest.TempPathFactory) -> ModelCanister:
    config = tiny_config(vocab_size=50260, n_positions=128)
    folder = write_model(tmp_path_factory.mktemp("instruct") / "model", config)
    instruct_tokenizer().save(str(folder / "tokenizer.json"))
    return with_model(new_canister(), folder)


@pytest.fixture(scope="module")
def chat(page_of: Callable[..., str], instruct: ModelCanister) -> str:
    return page_of(instruct)


def ask(page: Any, text: str, turns: int) -> str:
    """What is answered to a text, as the turn of that number."""
    page.fill("#prompt", text)
    page.locator("button:enabled", has_text="Ask").wait_for(timeout=SECONDS)
    page.keyboard.press("Enter")
    page.locator("article[data-run=ended]").nth(turns - 1).wait_for(timeout=SECONDS)
    shown = page.locator("article [data-text]").nth(turns - 1)
    return str(shown.evaluate("one => one.textContent"))


def test_a_turn_carries_what_was_said(chromium: Any, chat: str, instruct: ModelCanister) -> None:
    talk = Conversation(instruct)
    options = {"max_new_tokens": 6, "temperature": 0.2, "seed": 3}
    link = f"{chat}#prompt=&length=6&temperature=0.2&seed=3"
    with opened_page(chromium, link, viewport=DESKTOP) as page:
        for number, text in enumerate(("Who are you?", "And where?"), 1):
            asked = talk.request(text, 6)
            done = instruct.complete(asked.token_ids, template=False, **options)
            talk.add(asked, done)
            page.get_by_label("Your question").wait_for(timeout=SECONDS)
            assert ask(page, text, number) == done.text
            assert page.locator("article > p").nth(2 * (number - 1)).inner_text() == text
        page.get_by_role("button", name="Write it again").click()
        page.locator("article[data-run=ended]").nth(1).wait_for(timeout=SECONDS)
        assert page.locator("article").count() == 2

        with page.expect_download(timeout=SECONDS) as download:
            page.get_by_role("button", name="Save a receipt").last.click(timeout=SECONDS)
        page.get_by_role("button", name="Verify").click()
        page.locator("dialog input[type=file]").set_input_files(download.value.path())
        page.get_by_text("The receipt holds.").wait_for(timeout=SECONDS)
        proven = page.get_by_label("Prompt", exact=True).inner_text()
        assert proven.startswith("Who are you?\n")
        assert proven.endswith("\nAnd where?")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="New conversation").click()
        page.get_by_text("Ask the model something.").wait_for(timeout=SECONDS)

"""The page in a real browser: what it asks the model, how text arrives, Stop, words for errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser_kit import browser, opened_page
from ui_kit import SECONDS, Puppet, served

from icgpt.checkpoint import open_checkpoint
from icgpt.ui.local import LocalWriter

pytest.importorskip("gradio", reason="Gradio is missing: ./scripts/setup --browser")

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture
def puppet(stage: tuple[str, Puppet]) -> Puppet:
    stage[1].forget()
    return stage[1]


@pytest.fixture
def page(chromium: Any, stage: tuple[str, Puppet], puppet: Puppet) -> Iterator[Any]:
    with opened_page(chromium, stage[0], viewport=DESKTOP) as opened:
        yield opened


def text_of(page: Any) -> str:
    return str(page.locator("#text textarea").input_value())


def wait_for_text(page: Any, text: str) -> None:
    page.wait_for_function(
        "text => document.querySelector('#text textarea').value === text",
        arg=text,
        timeout=1000 * SECONDS,
    )


def wait_for_status(page: Any, words: str) -> None:
    page.locator("#status", has_text=words).wait_for(timeout=1000 * SECONDS)


def wait_for_buttons(page: Any, writing: bool) -> None:
    for button, ready in (("generate", not writing), ("stop", writing)):
        state = "enabled" if ready else "disabled"
        page.locator(f"#{button}:{state}").wait_for(timeout=1000 * SECONDS)


def test_an_empty_seed_is_a_space_and_the_defaults_are_the_seeds(page: Any, puppet: Puppet) -> None:
    puppet.pieces.put(None)
    page.click("#generate")
    wait_for_status(page, "0 tokens")
    assert puppet.asked == [(" ", {"max_new_tokens": 100, "temperature": 0.7})]


@pytest.mark.parametrize(("top_n", "top_k"), [("5", 5), ("0", None), ("-3", None), ("", None)])
def test_what_is_typed_is_asked(page: Any, puppet: Puppet, top_n: str, top_k: int | None) -> None:
    puppet.pieces.put(None)
    page.fill("#seed-text textarea", "To be")
    page.fill("#max-tokens input[type=number]", "7")
    page.fill("#temperature input[type=number]", "0.25")
    page.fill("#top-n input", top_n)
    page.click("#generate")
    wait_for_status(page, "0 tokens")
    options = {"max_new_tokens": 7, "temperature": 0.25}
    assert puppet.asked == [("To be", options if top_k is None else {**options, "top_k": top_k})]


def test_text_arrives_while_it_is_written(page: Any, puppet: Puppet) -> None:
    page.fill("#seed-text textarea", "To be")
    page.click("#generate")
    wait_for_text(page, "To be")
    for piece, whole in ((", or", "To be, or"), (" not", "To be, or not")):
        puppet.pieces.put(piece)
        wait_for_text(page, whole)
        wait_for_status(page, "Writing…")
        wait_for_buttons(page, writing=True)
    puppet.pieces.put(None)
    wait_for_status(page, "2 tokens")
    wait_for_text(page, "To be, or not")
    wait_for_buttons(page, writing=False)


def test_stop_ends_the_work_and_keeps_the_text(page: Any, puppet: Puppet) -> None:
    puppet.pieces.put("abc")
    page.click("#generate")
    wait_for_text(page, " abc")
    page.click("#stop")
    wait_for_status(page, "Stopped.")
    assert puppet.ended.wait(SECONDS)
    assert text_of(page) == " abc"
    puppet.pieces.put(None)
    page.click("#generate")
    wait_for_status(page, "0 tokens")


def test_leaving_the_page_ends_the_work(
    chromium: Any, stage: tuple[str, Puppet], puppet: Puppet
) -> None:
    with opened_page(chromium, stage[0]) as page:
        page.click("#generate")
        wait_for_status(page, "Writing…")
    assert puppet.ended.wait(SECONDS)


def test_models_are_chosen_by_name(chromium: Any) -> None:
    first, second = Puppet("first"), Puppet("second")
    second.pieces.put(None)
    with served(first, second) as url, opened_page(chromium, url) as page:
        page.click("input[aria-label=Model]")
        page.get_by_role("option", name="second").click()
        page.locator("#top strong", has_text="second").wait_for()
        page.click("#generate")
        wait_for_status(page, "0 tokens")
    assert (len(first.asked), len(second.asked)) == (0, 1)


@pytest.mark.parametrize(
    ("scheme", "viewport"), [("light", PHONE), ("dark", DESKTOP)], ids=["phone", "desktop"]
)
def test_a_model_of_this_process_writes(
    chromium: Any, scheme: str, viewport: dict[str, int]
) -> None:
    writer = LocalWriter(open_checkpoint("shakespeare-char"))
    *_, expected = writer.write("ROMEO:", max_new_tokens=40, temperature=0)
    with (
        served(writer) as url,
        opened_page(chromium, url, viewport=viewport, color_scheme=scheme) as page,
    ):
        page.fill("#seed-text textarea", "ROMEO:")
        page.fill("#max-tokens input[type=number]", "40")
        page.fill("#temperature input[type=number]", "0")
        page.click("#generate")
        wait_for_text(page, "ROMEO:" + expected.text)
        wait_for_status(page, "40 tokens")
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        page.fill("#seed-text textarea", "naïve 你")
        page.click("#generate")
        wait_for_status(page, "The model does not know these characters: ï, 你.")
        wait_for_text(page, "")
        wait_for_buttons(page, writing=False)
    assert writer.running == 0
    writer.close()

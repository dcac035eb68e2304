"""What holds of the page as a whole: its size, what it asks of whom, and that anyone can use it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser_kit import opened_page
from model_kit import ROOT
from page_kit import DESKTOP, SECONDS, ended, write

from icgpt import deploy
from icgpt.client import ModelCanister

INITIAL = 150_000
PHONE = {"width": 360, "height": 740}
TABLET = {"width": 820, "height": 1180}
HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>",
    "شكسبير قال: أكون أو لا أكون",
    "👩\u200d🚀 e\u0301 \u202eevil\u202c ﷽",
    "x" * 10_000,
]


def test_the_first_scripts_are_small(dist: Path) -> None:
    parts = json.loads((dist / "manifest.json").read_text())
    todo, first = ["index.html"], set()
    while todo:
        part = parts[todo.pop()]
        if part["file"] not in first:
            first.add(part["file"])
            todo += part.get("imports", [])
    scripts = [dist / name for name in first if name.endswith(".js")]
    scripts.append(dist / "theme.js")
    size = sum(len(gzip.compress(script.read_bytes())) for script in scripts)
    assert 10_000 < size <= INITIAL, [script.name for script in scripts]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, TABLET, DESKTOP], ids=["phone", "tablet", "desktop"])
def test_anyone_can_use_it(chromium: Any, site: str, scheme: str, viewport: dict[str, int]) -> None:
    axe = ROOT / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
    if not axe.is_file():
        pytest.skip("the page's packages are missing: ./scripts/setup")
    look = {"viewport": viewport, "color_scheme": scheme, "reduced_motion": "reduce"}
    errors: list[str] = []
    with opened_page(chromium, f"{site}#prompt=ROMEO%3A&length=3", **look) as page:
        page.on("console", lambda one: errors.append(one.text) if one.type == "error" else None)
        write(page)
        ended(page, "3 tokens")
        if viewport is not DESKTOP:
            page.locator("section[aria-label=Settings] button").first.click()
        page.get_by_role("button", name="More options").click()
        places = ["whole"]
        page.get_by_role("button", name="Verify").click()
        page.locator("dialog[open]").wait_for(timeout=SECONDS)
        places.append("dialog")
        # Evaluated, not added to the page: the page's policy lets no foreign script in.
        page.evaluate(axe.read_text())
        for place in reversed(places):
            found = page.evaluate("axe.run().then((found) => found.violations)")
            told = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
            assert not told, (place, told)
            page.keyboard.press("Escape")
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert not errors


def test_hostile_texts_stay_texts(chromium: Any, site: str, shakespeare: ModelCanister) -> None:
    with opened_page(chromium, site, viewport=DESKTOP) as page:
        page.get_by_role("slider", name="Length").press("Home")
        for prompt in HOSTILE:
            write(page, prompt)
            run = page.locator("article[data-run=ended]").first
            run.get_by_text(prompt[:20]).first.wait_for(timeout=SECONDS)
            page.get_by_role("button", name="Write", exact=True).wait_for(timeout=SECONDS)
            shown = run.locator("[data-text]").evaluate("one => one.textContent")
            assert shown.startswith(prompt)
        assert page.title() == "icgpt"
        assert page.locator("article img, article script").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= DESKTOP["width"]
        page.reload()
        page.locator("article").first.wait_for(timeout=SECONDS)
        assert page.locator("article").count() == len(HOSTILE)
        page.get_by_role("button", name="Clear all").click()
        page.get_by_text("What the model writes stands here.").wait_for(timeout=SECONDS)


def test_a_link_carries_prompt_and_settings(chromium: Any, site: str) -> None:
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    try:
        page = context.new_page()
        page.goto(site)
        page.fill("#prompt", "To be, & <not> é")
        page.get_by_role("slider", name="Temperature").press("End")
        page.get_by_label("Top N").fill("7")
        page.get_by_role("button", name="More options").click()
        page.get_by_label("Seed", exact=True).fill("18446744073709551615")
        page.get_by_role("button", name="Copy a link").click()
        page.get_by_text("The link is copied").first.wait_for(timeout=SECONDS)
        link = page.evaluate("navigator.clipboard.readText()")
        other = context.new_page()
        other.goto(link)
        assert other.locator("#prompt").input_value() == "To be, & <not> é"
        assert other.get_by_role("slider", name="Temperature").get_attribute("aria-valuenow") == "1"
        assert other.get_by_label("Top N").input_value() == "7"
        other.get_by_role("button", name="More options").click()
        assert other.get_by_label("Seed", exact=True).input_value() == "18446744073709551615"
        assert "#" not in other.url
    finally:
        context.close()


def test_the_keyboard_is_enough(chromium: Any, site: str) -> None:
    with opened_page(
        chromium, f"{site}#prompt=JULIET%3A&length=2&seed=1", viewport=DESKTOP
    ) as page:
        page.get_by_role("button", name="Write", exact=True).click(trial=True, timeout=SECONDS)
        page.get_by_text("Skip to the prompt").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "prompt"
        page.keyboard.press("Control+Enter")
        first = ended(page, "2 tokens").locator("[data-text]").inner_text()
        page.get_by_role("button", name="Write it again").focus()
        page.keyboard.press("Enter")
        page.locator("article").nth(1).wait_for(timeout=SECONDS)
        assert ended(page, "2 tokens").locator("[data-text]").inner_text() == first


def test_what_keeps_it_from_writing_is_said(
    chromium: Any, page_of: Callable[..., str], canister: ModelCanister
) -> None:
    with opened_page(chromium, page_of(canister)) as page:
        page.get_by_text("The canister has no model yet.").wait_for(timeout=SECONDS)
        page.context.set_offline(True)
        page.get_by_text("You are offline.").wait_for(timeout=SECONDS)
        page.context.set_offline(False)
        with deploy._stopped(canister.agent, canister.id):
            page.get_by_text("The canister is stopped.").wait_for(timeout=SECONDS)
        page.get_by_text("The canister has no model yet.").wait_for(timeout=SECONDS)

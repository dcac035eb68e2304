"""Receipts that the page makes hold for `icgpt verify`; the page checks what it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser_kit import opened_page
from page_kit import SECONDS, ended, write

from icgpt import kept_receipt
from icgpt.client import ModelCanister
from icgpt.network import NetworkInfo


def check(page: Any, file: Path, words: str) -> Any:
    """What the page says of a receipt."""
    page.locator("dialog input[type=file]").set_input_files(file)
    said = page.locator("dialog [role=status]", has_text=words)
    said.wait_for(timeout=SECONDS)
    return said


@pytest.fixture(scope="module")
def saved(chromium: Any, site: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A receipt that the page has saved."""
    path = tmp_path_factory.mktemp("receipt") / "romeo.json"
    with opened_page(chromium, f"{site}#prompt=ROMEO%3A&length=20&temperature=1&stop=zzz") as page:
        write(page)
        run = ended(page, "ended at its length")
        with page.expect_download(timeout=SECONDS) as download:
            run.get_by_role("button", name="Save a receipt").click()
        download.value.save_as(path)
    return path


def test_the_command_line_verifies_what_the_page_saved(saved: Path, local: NetworkInfo) -> None:
    proven = kept_receipt.read(saved).verify(local.root_key)
    assert (proven.prompt, len(proven.token_ids)) == ("ROMEO:", 20)
    assert (proven.options["temperature"], proven.options["stop"]) == (1.0, ["zzz"])


def test_the_page_verifies_receipts(
    chromium: Any,
    site: str,
    saved: Path,
    shakespeare: ModelCanister,
    local: NetworkInfo,
    tmp_path: Path,
) -> None:
    ours = tmp_path / "ours.json"
    asked = shakespeare.ask("JULIET:", max_new_tokens=5, seed=2**64 - 1, temperature=1e-7)
    proven = shakespeare.keep(asked).write(ours, local.root_key)
    text = saved.read_text()
    changed = {
        "what the receipt shows": text.replace('"prompt": "ROMEO:"', '"prompt": "JULIET:"'),
        "does not show this call": text.replace('"nonce": "', '"nonce": "00'),
        "has other fields": text.replace('"job"', '"jobs"'),
        "stands there twice": text.replace('"job"', '"job": "00", "job"', 1),
        "not valid JSON": text[:-3],
    }
    with opened_page(chromium, site) as page:
        page.get_by_role("button", name="Verify").click()
        for file, prompt, words in (
            (saved, "ROMEO:", "ROMEO:"),
            (ours, "JULIET:", proven.text or ""),
        ):
            # Waits for this receipt's prompt: that one holds is said of the one before, too.
            told = check(page, file, prompt).inner_text()
            assert "The receipt holds." in told
            assert words in told
        for words, other in changed.items():
            assert other != text
            file = tmp_path / "changed.json"
            file.write_text(other)
            check(page, file, words)


def test_another_network_proves_nothing(chromium: Any, elsewhere: str, saved: Path) -> None:
    with opened_page(chromium, elsewhere) as page:
        page.get_by_role("button", name="Verify").click()
        check(page, saved, "does not hold under this network's root key")

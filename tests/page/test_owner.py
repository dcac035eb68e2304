"""Owners in a real browser: signing in with a delegation, uploading a model, access and quotas."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_kit import opened_page
from model_kit import ROOT
from page_kit import SECONDS, ended, served, write
from provider import Provider

from icgpt.client import ModelCanister
from icgpt.network import NetworkInfo
from icgpt.principal import to_text

FILES = ROOT / "icgpt" / "models" / "shakespeare-char"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.__exit__()


@pytest.fixture
def owned(
    dist: Path, local: NetworkInfo, canister: ModelCanister, provider: Provider
) -> Iterator[str]:
    """The page of a canister without a model."""
    config = {
        "model_canister": to_text(canister.id),
        "network": "local",
        "root_key": local.root_key.hex(),
        "identity_provider": f"{provider.url}/authorize",
    }
    with served(dist, local.url, config) as url:
        yield url


def sign_in(page: Any, provider: Provider) -> None:
    button = page.get_by_role("button", name="Sign in")
    button.wait_for(timeout=SECONDS)
    with page.expect_popup() as opened:
        button.click(timeout=SECONDS)
    opened.value.get_by_role("button", name="Yes").click(timeout=SECONDS)
    page.get_by_role("button", name=f"Sign out {to_text(provider.principal)}").wait_for(
        timeout=SECONDS
    )


def test_a_manager_uploads_a_model_and_changes_access(
    chromium: Any, owned: str, canister: ModelCanister, provider: Provider
) -> None:
    with opened_page(chromium, owned) as page:
        page.get_by_text("The canister has no model yet.").wait_for(timeout=SECONDS)
        sign_in(page, provider)
        assert page.get_by_role("button", name="Manage").count() == 0

        canister.add_manager(provider.principal)
        page.reload()
        page.get_by_role("button", name="Manage").click(timeout=SECONDS)
        dialog = page.locator("dialog")
        choose = dialog.locator("input[type=file]")
        choose.set_input_files(FILES / "model.safetensors")
        dialog.get_by_text("Choose config.json too.").wait_for(timeout=SECONDS)
        choose.set_input_files([FILES / "config.json", FILES / "tokenizer.json"])
        dialog.get_by_label("Precision").select_option("int8")
        dialog.get_by_role("button", name="Upload").click()
        dialog.get_by_text("The model is set up and answers.").wait_for(timeout=SECONDS)
        assert (canister.info().precision, canister.info().ready) == ("int8", True)

        dialog.get_by_role("switch", name="Public").click()
        dialog.locator("[role=switch][data-state=unchecked]").wait_for(timeout=SECONDS)
        dialog.get_by_label("Principal").fill("2vxsx-fae")
        dialog.get_by_role("button", name="Add").click()
        dialog.get_by_role("button", name="Remove the user 2vxsx-fae").wait_for(timeout=SECONDS)
        access = canister.access()
        assert (access.public, access.users) == (False, [b"\x04"])

        dialog.get_by_label("Tokens a day, each user").fill("5000")
        dialog.get_by_role("button", name="Set quotas").click()
        page.get_by_text("The quotas are set.").first.wait_for(timeout=SECONDS)
        assert canister.quotas().user_tokens_per_day == 5000

        page.keyboard.press("Escape")
        page.get_by_role("slider", name="Length").press("Home")
        write(page, "ROMEO:")
        ended(page, "1 token")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("button", name="Sign in").wait_for(timeout=SECONDS)


def test_an_upload_goes_on_where_it_broke_off(
    chromium: Any, owned: str, canister: ModelCanister, provider: Provider
) -> None:
    canister.add_manager(provider.principal)
    data = (FILES / "model.safetensors").read_bytes()
    canister.begin("safetensors", len(data), hashlib.sha256(data).digest())
    canister.write("safetensors", 0, data[:1_000_000])
    with opened_page(chromium, owned) as page:
        sign_in(page, provider)
        page.get_by_role("button", name="Manage").click(timeout=SECONDS)
        dialog = page.locator("dialog")
        dialog.get_by_text("An upload has broken off: 1 MB of").wait_for(timeout=SECONDS)
        names = ("model.safetensors", "config.json", "tokenizer.json")
        dialog.locator("input[type=file]").set_input_files([FILES / name for name in names])
        dialog.get_by_role("button", name="Upload").click()
        dialog.get_by_text("The model is set up and answers.").wait_for(timeout=SECONDS)
    found = canister.info().source_sha256["safetensors"]
    assert found == hashlib.sha256(data).digest()

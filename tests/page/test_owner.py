"""Owners in a real browser: signing in with a delegation, uploading a model, access and quotas."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from browser_kit import opened_page
from model_kit import ROOT, with_model
from page_kit import SECONDS, ended, write
from provider import Provider

from icgpt import deploy, kept_receipt
from icgpt.client import ModelCanister
from icgpt.errors import RejectedError
from icgpt.principal import to_text
from icgpt.replica.management_types import UPDATE_SETTINGS

FILES = ROOT / "icgpt" / "models" / "shakespeare-char"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.__exit__()


@pytest.fixture
def owned(page_of: Callable[..., str], canister: ModelCanister, provider: Provider) -> str:
    """The page of a canister without a model."""
    return page_of(canister, f"{provider.url}/authorize")


def sign_in(page: Any, provider: Provider) -> None:
    button = page.get_by_role("button", name="Sign in")
    button.wait_for(timeout=SECONDS)
    with page.expect_popup() as opened:
        button.click(timeout=SECONDS)
    opened.value.get_by_role("button", name="Yes").click(timeout=SECONDS)
    page.get_by_role("button", name=f"Sign out {to_text(provider.principal)}").wait_for(
        timeout=SECONDS
    )


def answered(canister: ModelCanister, method: str) -> None:
    """Waits for a call of a canister to be answered, as the network tells."""
    for _ in range(SECONDS // 100):
        messages = requests.get(f"{canister.agent.url}/_/messages", timeout=60).json()
        found = [one["status"] for one in messages if one["method"] == method]
        if found[-1:] == ["replied"]:
            return
        time.sleep(0.1)
    raise AssertionError(f"nobody has called {method}")


def paused_after_a_chunk(page: Any, dialog: Any) -> None:
    """Begins the upload, and pauses it when one of its chunks has arrived."""
    chunks: list[Any] = []
    paused = False

    def hold(route: Any) -> None:
        if len(route.request.post_data_buffer or b"") < 1_000_000:
            route.continue_()
            return
        chunks.append(route)
        if paused:
            route.abort()
        elif len(chunks) == 1:
            route.continue_()

    page.route("**/call", hold)
    dialog.get_by_role("button", name="Upload").click()
    dialog.get_by_text("Sending: 1.9 MB of").wait_for(timeout=SECONDS)
    dialog.get_by_role("button", name="Pause").click()
    paused = True
    for chunk in chunks[1:]:
        chunk.abort()
    dialog.get_by_text("Paused. What has arrived is kept").wait_for(timeout=SECONDS)
    page.unroute("**/call")


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
        dialog.get_by_label("Name").fill("The Bard")
        paused_after_a_chunk(page, dialog)
        begun = canister.missing("safetensors")
        assert begun is not None
        assert 0 < begun.arrived < begun.length
        dialog.get_by_role("button", name="Upload").click()
        dialog.get_by_text("The model is set up and answers.").wait_for(timeout=SECONDS)
        assert (canister.info().precision, canister.info().ready) == ("int8", True)
        assert canister.info().name == "The Bard"
        page.locator("dd", has_text="The Bard").wait_for(state="attached", timeout=SECONDS)

        dialog.get_by_role("switch", name="Public").click()
        dialog.locator("[role=switch][data-state=unchecked]").wait_for(timeout=SECONDS)
        dialog.get_by_label("Principal").fill("2vxsx-fae")
        dialog.get_by_role("button", name="Add").click()
        dialog.get_by_role("button", name="Remove the user 2vxsx-fae").wait_for(timeout=SECONDS)
        access = canister.access()
        assert (access.public, access.users) == (False, [b"\x04"])
        dialog.get_by_role("button", name="Remove the user 2vxsx-fae").click()
        remove = dialog.get_by_role("button", name="Remove the user")
        remove.wait_for(state="detached", timeout=SECONDS)

        dialog.get_by_label("Tokens a day, each user").fill("5000")
        dialog.get_by_role("button", name="Set quotas").click()
        page.get_by_text("The quotas are set.").first.wait_for(timeout=SECONDS)
        assert canister.quotas().user_tokens_per_day == 5000

        dialog.get_by_text("Nothing is being written.").wait_for(timeout=SECONDS)
        page.keyboard.press("Escape")
        card = page.get_by_role("region", name="Model")
        card.get_by_text("Cycles left").wait_for(timeout=SECONDS)
        page.get_by_role("slider", name="Length").press("End")
        write(page, "ROMEO:")
        page.locator("article[data-run=writing]").wait_for(timeout=SECONDS)
        page.goto("about:blank")
        page.go_back()
        ended(page, "stopped")
        answered(canister, "cancel")
        with page.expect_download(timeout=SECONDS) as download:
            page.get_by_role("button", name="Save a receipt").click()
        assert kept_receipt.read(download.value.path()).shows["finish"] == "cancelled"
        page.get_by_role("button", name="Sign out").click(timeout=SECONDS)
        page.get_by_role("button", name="Sign in").wait_for(timeout=SECONDS)
        card.get_by_text("Version").wait_for(timeout=SECONDS)
        assert card.get_by_text("Cycles left").count() == 0  # told those who may use the model


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


def test_a_controller_sees_cycles_and_the_log(
    chromium: Any, owned: str, canister: ModelCanister, provider: Provider
) -> None:
    agent = canister.agent
    controllers = [*(agent.controllers(canister.id) or []), provider.principal]
    value = {"canister_id": canister.id, "settings": {"controllers": controllers}}
    deploy._manage(agent, "update_settings", UPDATE_SETTINGS, value, canister.id)
    with pytest.raises(RejectedError):
        agent.update(canister.id, "set_public_mode", b"no Candid")
    with opened_page(chromium, owned) as page:
        sign_in(page, provider)
        page.get_by_role("button", name="Manage").click(timeout=SECONDS)
        insides = page.locator("dialog section", has_text="Cycles and log")
        insides.get_by_text("of memory").wait_for(timeout=SECONDS)
        assert re.search(r"trillion cycles, .+ a day while idle; .+ MB", insides.inner_text())
        assert "[TRAP]" in insides.get_by_label("Log").inner_text()


def test_a_manager_ends_what_others_have_asked_for(
    chromium: Any, owned: str, canister: ModelCanister, provider: Provider
) -> None:
    with_model(canister, "shakespeare-char")
    canister.add_manager(provider.principal)
    canister.call("set_per_message", 1_000_000)  # so that it can be watched
    job = canister.submit("ROMEO:", max_new_tokens=3000)
    with opened_page(chromium, owned) as page:
        sign_in(page, provider)
        page.get_by_role("button", name="Manage").click(timeout=SECONDS)
        jobs = page.get_by_role("region", name="Jobs")
        jobs.get_by_text("of 3,000 tokens").wait_for(timeout=SECONDS)
        assert to_text(canister.agent.identity.principal) in jobs.inner_text()
        jobs.get_by_role("button", name=f"End the job {job.hex()[:12]}").click(timeout=SECONDS)
        jobs.get_by_text("Nothing is being written.").wait_for(timeout=SECONDS)
    assert canister.poll(job).finish == "cancelled"

"""The built page, a browser, and a canister that the page asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_kit import browser
from model_kit import ROOT
from page_kit import served

from icgpt.client import ModelCanister
from icgpt.network import NetworkInfo
from icgpt.principal import to_text


@pytest.fixture(scope="session")
def dist() -> Path:
    """The built page."""
    folder = ROOT / "frontend" / "dist"
    if not (folder / "index.html").is_file():
        pytest.skip("the page is not built: ./scripts/setup")
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(dist: Path, local: NetworkInfo, shakespeare: ModelCanister) -> Iterator[str]:
    """The address of a page for the model in the box."""
    config = {
        "model_canister": to_text(shakespeare.id),
        "network": "local",
        "root_key": local.root_key.hex(),
    }
    with served(dist, local.url, config) as url:
        yield url


@pytest.fixture(scope="module")
def elsewhere(dist: Path, local: NetworkInfo, shakespeare: ModelCanister) -> Iterator[str]:
    """The same page, which believes to be on another network than it is."""
    config = {"model_canister": to_text(shakespeare.id), "network": "ic", "root_key": None}
    with served(dist, local.url, {**config, "host": "https://icp0.invalid"}) as url:
        yield url

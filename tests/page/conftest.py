"""The built page, a browser, and a canister that the page asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_kit import browser
from model_kit import ROOT
from page_kit import BUILT, deployed, served

from icgpt.agent import Agent
from icgpt.client import ModelCanister
from icgpt.network import NetworkInfo
from icgpt.principal import to_text

PageOf = Callable[..., str]


@pytest.fixture(scope="session")
def dist() -> Path:
    """The built page."""
    folder = ROOT / "frontend" / "dist"
    if not (folder / "index.html").is_file():
        pytest.skip("the page is not built: ./scripts/setup")
    return folder


@pytest.fixture(scope="session")
def page_of(
    dist: Path, agent: Agent, local: NetworkInfo, tmp_path_factory: pytest.TempPathFactory
) -> PageOf:
    """Deploys the page of a model, and says its address at the network's gateway."""
    page = (dist / "index.html").read_bytes()
    assert (BUILT / "page" / "index.html").read_bytes() == page, "run ./scripts/setup first"

    def run(model: ModelCanister, identity_provider: str | None = None) -> str:
        folder = tmp_path_factory.mktemp("page")
        return deployed(agent, local, folder, model, identity_provider)

    return run


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def site(page_of: PageOf, shakespeare: ModelCanister) -> str:
    """The address of a page for the model in the box."""
    return page_of(shakespeare)


@pytest.fixture(scope="module")
def elsewhere(dist: Path, local: NetworkInfo, shakespeare: ModelCanister) -> Iterator[str]:
    """The same files, which believe to be on another network than they are."""
    config = {"model_canister": to_text(shakespeare.id), "network": "ic", "root_key": None}
    with served(dist, local.url, {**config, "host": "https://icp0.invalid"}) as url:
        yield url

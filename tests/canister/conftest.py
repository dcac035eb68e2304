"""Fixtures of the canister's tests."""

from __future__ import annotations

import pytest
from hands import Hands
from model_kit import target

from icgpt.agent import Agent
from icgpt.network import NetworkInfo


@pytest.fixture(scope="session")
def hands(agent: Agent, local: NetworkInfo, tmp_path_factory: pytest.TempPathFactory) -> Hands:
    """Hands inside canisters."""
    return Hands(agent, target(local), tmp_path_factory.mktemp("hands"))

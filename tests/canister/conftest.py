"""Fixtures of the canister's tests; some run the canister alone, as the benches do."""

from __future__ import annotations

import sys

import pytest
from hands import Hands
from model_kit import ROOT, target

from icgpt.agent import Agent
from icgpt.network import NetworkInfo

sys.path.append(str(ROOT / "tests" / "bench"))


@pytest.fixture(scope="session")
def hands(agent: Agent, local: NetworkInfo, tmp_path_factory: pytest.TempPathFactory) -> Hands:
    """Hands inside canisters."""
    return Hands(agent, target(local), tmp_path_factory.mktemp("hands"))

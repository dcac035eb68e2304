"""Fixtures that several rooms' tests share: a local network, and canisters on it.

One network serves the whole run; each test that changes a canister gets one of its own.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_kit import ROOT, MakeCanister, new_identity, target, tiny_config, with_model, write_model

from icgpt import conversion, deploy, network
from icgpt.agent import Agent
from icgpt.client import ModelCanister
from icgpt.connect import connect
from icgpt.identity import Identity
from icgpt.network import NetworkInfo
from icgpt.project import Project

# Shells ignore Ctrl-C in what they start in the background, and all that is started there inherits
# that: the commands that the tests interrupt, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def converted_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what tests convert out of the user's cache."""
    folder = tmp_path_factory.mktemp("converted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="session")
def wasm() -> bytes:
    """The built canister."""
    path = ROOT / "canister" / "build" / "model.wasm.gz"
    assert path.is_file(), "run ./scripts/setup first"
    return path.read_bytes()


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkInfo]:
    """A running local network with a state folder of its own."""
    state = tmp_path_factory.mktemp("network")
    info = network.start(state, port=0)
    yield info
    network.stop(state)


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """A signing identity made for this run."""
    return new_identity(tmp_path_factory.mktemp("identity") / "identity.pem")


@pytest.fixture(scope="session")
def agent(local: NetworkInfo, identity: Identity) -> Iterator[Agent]:
    """The controller's agent."""
    agent = connect(target(local), identity)
    yield agent
    agent.close()


@pytest.fixture(scope="session")
def new_canister(
    local: NetworkInfo, agent: Agent, wasm: bytes, tmp_path_factory: pytest.TempPathFactory
) -> MakeCanister:
    """Makes a canister with the built code and no model."""

    def make() -> ModelCanister:
        folder = tmp_path_factory.mktemp("project")
        (folder / "dfx.json").write_text("{}")
        done = deploy.deploy(agent, target(local), Project(folder), "model", wasm)
        return ModelCanister(agent, done.canister_id)

    return make


@pytest.fixture
def canister(new_canister: MakeCanister) -> ModelCanister:
    """A canister with no model, for this test alone."""
    return new_canister()


@pytest.fixture(scope="session")
def shakespeare(new_canister: MakeCanister) -> ModelCanister:
    """A canister with the model in the box. Tests must not change it."""
    return with_model(new_canister(), "shakespeare-char")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with a tiny model and no tokenizer."""
    return write_model(tmp_path / "tiny", tiny_config())

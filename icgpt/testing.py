"""A pytest plugin: a local Internet Computer for tests, and a model on it.

Installed with the package, so its fixtures are there without any import:

    def test_my_canister(replica):
        canister = replica.install(Path("my.wasm").read_bytes())
        assert replica.agent.query(canister, "greet", encode([TEXT], ["you"]))

    def test_with_a_model(model_canister):
        assert model_canister.generate("To be", 5)

`replica` is one network for the whole run, with a state folder of its own, on a free port.
`model_canister` is a canister with a model, made when it is first asked for; tests share it and
must not change it. The setting `icgpt_model` names the model: a folder, or one that comes with
the package. `icgpt_wasm` names the canister's module, if not the built one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from icgpt.agent import Agent
    from icgpt.client import ModelCanister
    from icgpt.connect import Network
    from icgpt.network import NetworkInfo

DEFAULT_MODEL = "shakespeare-char"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's settings."""
    parser.addini("icgpt_model", "the model of `model_canister`", default=DEFAULT_MODEL)
    parser.addini("icgpt_wasm", "the module of `model_canister`", default="")


@dataclass(frozen=True)
class Replica:
    """A running local network; `agent` signs with a key made for this run."""

    info: NetworkInfo
    agent: Agent

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.info.url

    @property
    def root_key(self) -> bytes:
        """The key that its certificates hold under, in DER."""
        return self.info.root_key

    @property
    def network(self) -> Network:
        """The network as `icgpt.connect` and `icgpt.deploy` take it."""
        from icgpt.connect import Network

        effective = self.info.default_effective_canister_id
        return Network("local", self.info.url, self.info.root_key, effective)

    def install(self, wasm: bytes, argument: bytes | None = None) -> bytes:
        """Create a canister with a module in it; return its id.

        Args:
            wasm: the module, gzipped or not.
            argument: what it is installed with, in Candid; no values if left out.
        """
        from icgpt import deploy

        argument = deploy.EMPTY_ARGUMENT if argument is None else argument
        return deploy.new_canister(self.agent, self.network, wasm, argument)


@pytest.fixture(scope="session")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A local Internet Computer, for the whole run."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    from icgpt import network
    from icgpt.connect import Network, connect
    from icgpt.identity import from_pem

    state = tmp_path_factory.mktemp("icgpt-network")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    info = network.start(state, port=0)
    try:
        effective = info.default_effective_canister_id
        agent = connect(Network("local", info.url, info.root_key, effective), from_pem(pem))
        yield Replica(info, agent)
        agent.close()
    finally:
        network.stop(state)


@pytest.fixture(scope="session")
def model_canister(replica: Replica, pytestconfig: pytest.Config) -> ModelCanister:
    """A canister with a model in it, which tests must leave as it is."""
    from icgpt import deploy
    from icgpt.checkpoint import open_checkpoint
    from icgpt.client import ModelCanister
    from icgpt.project import find
    from icgpt.upload import upload

    chosen = str(pytestconfig.getini("icgpt_wasm"))
    base = pytestconfig.rootpath
    wasm = deploy.read_wasm(deploy.find_wasm(find(), base / chosen if chosen else None))
    canister = ModelCanister(replica.agent, replica.install(wasm))
    canister.set_public(True)
    named = str(pytestconfig.getini("icgpt_model"))
    folder = base / named
    upload(canister, open_checkpoint(str(folder) if folder.is_dir() else named))
    return canister

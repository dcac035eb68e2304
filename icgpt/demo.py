"""From nothing to a model that answers: a local network, a canister on it, the model in the box.

Where the network stays, a page for it too. What is there already is used: a network that runs, a
canister that has the code, the model in it. A canister that holds another model is left alone.
`icgpt demo` and `./scripts/demo` are this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from icgpt import connect, deploy, network, page, project
from icgpt.agent import Agent
from icgpt.checkpoint import Checkpoint, open_checkpoint
from icgpt.client import ModelCanister
from icgpt.errors import IcgptError
from icgpt.upload import Step, Upload, upload

MODEL: Final = "shakespeare-char"
CANISTER: Final = project.DEFAULT_NAME


class OtherModelError(IcgptError):
    """The canister holds a model that the demo would replace."""

    kind = "other_model"


@dataclass(frozen=True)
class Parts:
    """What the demo is made of."""

    module: bytes
    checkpoint: Checkpoint


def parts() -> Parts:
    """Finds code and model, before anything is started."""
    module = deploy.read_wasm(deploy.find_wasm(project.find()))
    return Parts(module, open_checkpoint(MODEL))


@dataclass(frozen=True)
class Host:
    """The local network."""

    network: connect.Network
    stays: bool
    """Whether it goes on after the demo."""


@contextlib.contextmanager
def running_network(keep: bool, say: Callable[[str], None]) -> Iterator[Host]:
    """The local network; one that was started here ends with the context unless it is kept."""
    folder = network.default_state_dir()
    ours = network.status(folder) is None
    if ours:
        say("Starting a local Internet Computer")
        network.start(folder)
    try:
        yield Host(connect.resolve("local"), keep or not ours)
    finally:
        if ours and not keep:
            network.stop(folder)


def deployed(
    agent: Agent, target: connect.Network, module: bytes, say: Callable[[str], None]
) -> ModelCanister:
    """The canister with our code in it."""
    done = deploy.deploy(agent, target, project.find(), CANISTER, module, say=say)
    return ModelCanister(agent, done.canister_id)


def with_model(
    model: ModelCanister, checkpoint: Checkpoint, show: Callable[[Step], None]
) -> Upload:
    """Puts the model in the box into the canister; OtherModelError when there is another one."""
    live = model.info().source_sha256["safetensors"]
    if live is not None and live != checkpoint.files["safetensors"].sha256():
        raise OtherModelError(
            f"the canister '{CANISTER}' holds another model, which the demo leaves alone",
            "Try that one with `icgpt chat`, or put this one in its place: "
            f"icgpt upload {CANISTER} {MODEL}",
        )
    return upload(model, checkpoint, show)


def page_of(
    agent: Agent, target: connect.Network, model: ModelCanister, say: Callable[[str], None]
) -> str | None:
    """The address of a page for the canister; None where no page has been built."""
    home = project.find()
    built = page.find_module(home)
    if built is None:
        return None
    wasm = deploy.read_wasm(built)
    done = page.deploy_page(agent, target, home, CANISTER, model.id, wasm, say=say)
    return done.url if done else None

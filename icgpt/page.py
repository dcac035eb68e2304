"""The page's canister: it serves the built page, and is told which model the page talks to.

`icgpt deploy` puts it beside the model's canister; people open its address in a browser. What it is
told is kept when it is upgraded, so it is installed again only when the page or the model changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from icgpt import candid
from icgpt.agent import Agent
from icgpt.built import find_built
from icgpt.candid import PRINCIPAL, TEXT, Opt, Record
from icgpt.connect import Network
from icgpt.deploy import Deployment, install
from icgpt.errors import RejectedError
from icgpt.principal import to_text
from icgpt.project import DEFAULT_NAME, Project

NAME: Final = "frontend"
MODULE: Final = "frontend.wasm.gz"
CONFIG: Final = Record(
    {"model_canister": Opt(PRINCIPAL), "host": Opt(TEXT), "identity_provider": Opt(TEXT)}
)


@dataclass(frozen=True)
class Page:
    """A page that was brought up to date."""

    name: str
    done: Deployment
    url: str

    def to_json(self) -> dict[str, Any]:
        """The page as the command line tells of it."""
        return {**self.done.to_json(self.name), "url": self.url}


def name_for(model: str) -> str:
    """What the page of a model's canister is called."""
    return NAME if model == DEFAULT_NAME else f"{model}-{NAME}"


def find_module(project: Project) -> Path | None:
    """The built page's module: the project's own, or icgpt's."""
    return project.built(MODULE) or find_built(MODULE)


def address(network: Network, canister_id: bytes) -> str:
    """Where browsers find the page of a canister."""
    text = to_text(canister_id)
    if network.mainnet:
        return f"https://{text}.icp0.io/"
    parts = urlsplit(network.url)
    if parts.hostname in ("127.0.0.1", "::1", "localhost"):
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{text}.localhost{port}/"
    return f"{parts.scheme}://{parts.netloc}/?canisterId={text}"


def deploy_page(
    agent: Agent,
    network: Network,
    project: Project,
    model: str,
    model_id: bytes,
    wasm: bytes,
    canister_id: bytes | None = None,
    say: Callable[[str], None] = lambda text: None,
    agree: Callable[[int], None] = lambda cycles: None,
) -> Page | None:
    """Brings the page of a model's canister up to date.

    None on mainnet, when no canister is known there that could hold the page: one costs cycles.

    Args:
        agent: signs as the controller of the page's canister.
        network: where.
        project: keeps the id of the page's canister under `name_for(model)`.
        model: the name of the model's canister.
        model_id: the canister that the page is to talk to.
        wasm: the module, with the page in it.
        canister_id: use this one, and keep its id.
        say: told in words what is being done.
        agree: told what the installation costs at most, before it is begun; raises to prevent it.
    """
    name = name_for(model)
    known = canister_id or project.lookup(name, network.name)
    if known is None and network.mainnet:
        return None
    config = _config(agent, known) if known is not None else {}
    settled = config.get("model_canister") == model_id
    wanted = {"host": None, "identity_provider": None, **config, "model_canister": model_id}
    argument = candid.encode([Opt(CONFIG)], [wanted])
    done = install(
        agent,
        network,
        project,
        name,
        wasm,
        canister_id=canister_id,
        argument=argument,
        settled=settled,
        what="the page",
        say=say,
        agree=agree,
    )
    return Page(name, done, address(network, done.canister_id))


def _config(agent: Agent, canister: bytes) -> dict[str, Any]:
    """What the page's canister was told; nothing where there is no such canister."""
    try:
        reply = agent.query(canister, "config", candid.encode([], []))
        (config,) = candid.decode(reply, [CONFIG])
    except (RejectedError, candid.CandidError):
        return {}
    return dict(config)

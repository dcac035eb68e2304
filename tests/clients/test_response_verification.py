"""The verifier that the platform's gateways use, on what our canisters answer over HTTP.

Runs where it is installed, by `scripts/setup --clients`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from clients_kit import MODULES, has_node
from model_kit import ROOT, target

from icgpt.agent import Agent
from icgpt.candid import decode, encode
from icgpt.client import ModelCanister
from icgpt.deploy import read_wasm
from icgpt.network import NetworkInfo
from icgpt.page import deploy_page
from icgpt.project import Project
from icgpt.replica.gateway import REQUEST, RESPONSE

PACKAGE = "@dfinity/response-verification"
pytestmark = pytest.mark.skipif(not has_node(PACKAGE), reason=f"{PACKAGE} is not installed")
Pair = tuple[dict[str, Any], dict[str, Any]]
HELD = {"version": 2, "status": 200}


class Verifier:
    """Asks a canister, and has the answers verified."""

    def __init__(self, agent: Agent, local: NetworkInfo, canister: bytes, folder: Path) -> None:
        self.agent, self.root_key, self.canister, self.folder = (
            agent,
            local.root_key,
            canister,
            folder,
        )
        (folder / "node_modules").symlink_to(MODULES)
        shutil.copy(Path(__file__).parent / "verify.mjs", folder)

    def ask(self, path: str, method: str = "GET", **headers: str) -> Pair:
        pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
        request = {"method": method, "url": path, "body": b"", "certificate_version": 2}
        candid = request | {"headers": [{0: name, 1: value} for name, value in pairs]}
        reply = self.agent.query(self.canister, "http_request", encode([REQUEST], [candid]))
        (response,) = decode(reply, [RESPONSE])
        received = [(pair[0], pair[1]) for pair in response["headers"]]
        kept = {key: response[key] for key in ("status_code", "body")}
        return request | {"headers": pairs}, kept | {"headers": received}

    def verify(self, *pairs: Pair) -> list[dict[str, Any]]:
        plain = [[{**message, "body": message["body"].hex()} for message in pair] for pair in pairs]
        for request, _ in plain:
            request["certificate_version"] = [2]  # as JavaScript has what may be absent
        given = {"rootKey": self.root_key.hex(), "canister": self.canister.hex(), "pairs": plain}
        done = subprocess.run(
            ["node", "verify.mjs"],
            cwd=self.folder,
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        results: list[dict[str, Any]] = json.loads(done.stdout)
        return results


def changed(pair: Pair, **more: Any) -> Pair:
    """The same request with another response."""
    return pair[0], pair[1] | more


def test_the_models_canister(
    agent: Agent, local: NetworkInfo, shakespeare: ModelCanister, tmp_path: Path
) -> None:
    verifier = Verifier(agent, local, shakespeare.id, tmp_path)
    document, health = verifier.ask("/model.json"), verifier.ask("/health")
    (etag,) = (value for name, value in document[1]["headers"] if name == "etag")
    told = [
        (document, HELD),
        (verifier.ask("/model.json?x=1", "HEAD"), HELD),
        (verifier.ask("/model.json", if_none_match=etag), {"version": 2, "status": 304}),
        (verifier.ask("/model.json", "DELETE"), {"version": 2, "status": 405}),
        (verifier.ask("//model.json"), HELD),
        (verifier.ask("/nothing"), {"version": 2, "status": 404}),
        (verifier.ask("/"), {"version": 2, "status": 404}),
        (verifier.ask("/a/b/c/"), {"version": 2, "status": 404}),
    ]
    assert verifier.verify(*(pair for pair, _ in told)) == [wanted for _, wanted in told]
    # What is left open is let through, and nothing of it is vouched for.
    opened = [health, verifier.ask("/metrics"), verifier.ask("/health", "POST")]
    for result in verifier.verify(*opened, changed(health, body=b"anything")):
        assert result == {"version": 2, "status": None}
    forged = [
        changed(document, body=document[1]["body"].replace(b"true", b"1337")),
        changed(document, status_code=201),
        changed(document, headers=[*document[1]["headers"], ("x-more", "1")]),
        (document[0], health[1]),
        (document[0], verifier.ask("/nothing")[1]),
        (verifier.ask("/nothing")[0], health[1]),
        (health[0], document[1]),
    ]
    for result in verifier.verify(*forged):
        assert "error" in result, result


def test_the_pages_canister(agent: Agent, local: NetworkInfo, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dfx.json").write_text("{}")
    wasm = read_wasm(ROOT / "canister" / "build" / "frontend.wasm.gz")
    page = deploy_page(agent, target(local), Project(folder), "model", bytes(8) + b"\x07\x01", wasm)
    assert page is not None
    (tmp_path / "verifier").mkdir()
    verifier = Verifier(agent, local, page.done.canister_id, tmp_path / "verifier")
    index = verifier.ask("/")
    pairs = [index, verifier.ask("/config.json"), verifier.ask("/a/b", accept_encoding="br")]
    assert verifier.verify(*pairs) == [HELD] * 3
    (result,) = verifier.verify(changed(index, body=b"<html>"))
    assert "error" in result

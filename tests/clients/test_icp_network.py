"""The `icp` command line, with this network as the one that it starts, and as one that it finds.

Runs where icp is installed: by `scripts/setup --clients`, or on the path.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from clients_kit import Icp, find_icp, write_project
from model_kit import with_model

from icgpt.client import ModelCanister
from icgpt.connect import Network, connect
from icgpt.identity import anonymous
from icgpt.network import NetworkInfo
from icgpt.principal import to_text
from icgpt.replica.launcher import write_program

pytestmark = pytest.mark.skipif(find_icp() is None, reason="icp is not installed")
ON = ("-e", "managed")


@pytest.fixture(scope="module")
def icp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Icp]:
    """A project whose network icp has started, with the canister deployed and a model in it."""
    folder = tmp_path_factory.mktemp("icp")
    write_project(folder, **{"port: 4943": "port: 0"})
    icp = Icp(folder, write_program(folder))
    icp.run("network", "start", "managed", "-d")
    try:
        icp.run("deploy", *ON)
        with_model(model(icp), "shakespeare-char")
        yield icp
    finally:
        icp.run("network", "stop", "managed")


def model(icp: Icp) -> ModelCanister:
    """The deployed canister, by our own client: icp without an identity is anonymous."""
    status = json.loads(icp.run("network", "status", "managed", "--json"))
    url = re.sub(r"localhost", "127.0.0.1", status["api_url"]).rstrip("/")
    network = Network("managed", url, bytes.fromhex(status["root_key"]), None)
    (ids,) = (icp.folder / ".icp").rglob("managed.ids.json")
    return ModelCanister(connect(network, anonymous()), json.loads(ids.read_text())["model"])


def test_the_seeds_calls(icp: Icp) -> None:
    call = ("canister", "call", *ON, "model")
    answer = icp.run(*call, "inference", "(vec {1; 2}, 1:nat8, 0.2:float64)")
    assert re.search(r"Ok = record \{ result = variant \{ Ok = vec \{ \d+ : nat32 \} \} \}", answer)
    assert "Ok" in icp.run(*call, "generate", '("what is it?", 10:nat8, 0.2:float64)')
    assert "n_embd = 192" in icp.run(*call, "--query", "model_info", "()")


def test_the_page_finds_the_model(icp: Icp) -> None:
    """icp tells the page's canister the model's id; the gateway checks what the page says."""
    (ids,) = (icp.folder / ".icp").rglob("managed.ids.json")
    known = json.loads(ids.read_text())
    status = json.loads(icp.run("network", "status", "managed", "--json"))
    port = status["api_url"].rstrip("/").rpartition(":")[2]
    host = {"Host": f"{known['frontend']}.localhost:{port}"}
    answer = requests.get(f"http://127.0.0.1:{port}/config.json", headers=host, timeout=30)
    assert answer.json()["model_canister"] == known["model"]
    assert answer.json()["root_key"] == status["root_key"]


def test_status_and_settings(icp: Icp) -> None:
    icp.run("canister", "settings", "update", *ON, "model", "--freezing-threshold", "90d")
    status = json.loads(icp.run("canister", "status", *ON, "model", "--json"))
    assert status["status"] == "Running"
    assert status["settings"]["freezing_threshold"] == "7_776_000"
    icp.run("canister", "top-up", *ON, "model", "--amount", "1t")
    assert "candid" not in icp.run("canister", "logs", *ON, "model")


def test_upgrade_snapshot_and_restore(icp: Icp) -> None:
    answering = ("canister", "call", *ON, "model", "generate", '("To be", 8:nat8, 0.0:float64)')
    before = icp.run(*answering)
    icp.run("deploy", *ON, "--mode", "upgrade")
    assert icp.run(*answering) == before
    icp.run("canister", "stop", *ON, "model")
    snapshot = icp.run("canister", "snapshot", "create", *ON, "model", "-q").strip()
    assert snapshot in icp.run("canister", "snapshot", "list", *ON, "model")
    icp.run("canister", "snapshot", "download", *ON, "model", snapshot, "-o", "downloaded")
    uploaded = icp.run("canister", "snapshot", "upload", *ON, "model", "-i", "downloaded", "-q")
    icp.run("canister", "start", *ON, "model")
    icp.run("deploy", *ON, "--mode", "reinstall", "--yes")
    assert "Err" in icp.run(*answering)  # the model is gone
    icp.run("canister", "stop", *ON, "model")
    icp.run("canister", "snapshot", "restore", *ON, "model", uploaded.strip())
    icp.run("canister", "start", *ON, "model")
    assert icp.run(*answering) == before
    icp.run("canister", "snapshot", "delete", *ON, "model", snapshot)


def test_by_way_of_the_proxy_canister(icp: Icp) -> None:
    """A canister that icp has installed calls the management canister for it."""
    status = json.loads(icp.run("network", "status", "managed", "--json"))
    proxy = status["proxy_canister_principal"]
    icp.run("canister", "settings", "update", *ON, "model", "--add-controller", proxy, "-f")
    assert "Running" in icp.run("canister", "status", *ON, "model", "--proxy", proxy)
    icp.run("canister", "settings", "update", *ON, "model", "--remove-controller", proxy, "-f")


def test_tokens(icp: Icp) -> None:
    assert "ICP" in icp.run("token", "balance", *ON)
    assert "Minted" in icp.run("cycles", "mint", "--icp", "2", *ON)
    assert "cycles" in icp.run("cycles", "balance", *ON)


def test_a_network_that_is_there_already(local: NetworkInfo, tmp_path: Path) -> None:
    """Deployed by an identity that nobody has given cycles to."""
    write_project(tmp_path, **{"http://127.0.0.1:4943": local.url})
    icp = Icp(tmp_path)
    icp.run("identity", "new", "alice", "--storage", "plaintext")
    icp.run("deploy", "-e", "local", "--identity", "alice")
    status = icp.run("canister", "status", "-e", "local", "--identity", "alice", "model")
    assert "Running" in status


def test_what_is_asked_for_and_not_there_is_said(tmp_path: Path) -> None:
    import subprocess

    folders = ["--state-dir", str(tmp_path), "--status-dir", str(tmp_path)]
    command = [sys.executable, "-m", "icgpt.replica.launcher", *folders]
    for more, text in (
        (["--ii"], "this network has no Internet Identity"),
        (["--interface-version", "2.0.0"], "only 1.x"),
        (["--bind", "192.0.2.1"], "only this machine itself"),
    ):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert text in done.stderr


def test_the_candid_page_that_icp_installs(icp: Icp) -> None:
    """A canister that somebody else wrote and certified, checked by the gateway."""
    status = json.loads(icp.run("network", "status", "managed", "--json"))
    port = status["api_url"].rstrip("/").rpartition(":")[2]
    host = f"{status['candid_ui_principal']}.localhost:{port}"
    page = requests.get(f"http://127.0.0.1:{port}/", headers={"Host": host}, timeout=30)
    assert page.status_code == 200, page.text
    assert "<html" in page.text.lower()
    named = {"Host": f"model.managed.localhost:{port}"}
    answer = requests.get(f"http://127.0.0.1:{port}/model.json", headers=named, timeout=30)
    assert answer.json()["canister"] == to_text(model(icp).id)  # by icp's name for our canister

"""agent-js and icp-py-core, as their users have them, with everything that they verify switched on.

Run where they are installed, by `scripts/setup --clients`. (ic-py: `tests/replica/test_icpy.py`.)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from clients_kit import MODULES, PYTHON, has_node
from replica_kit import COUNTER, MINUTE, Ed25519, Raw, delegate, wasm
from test_signatures import Issuer

from icgpt.network import NetworkInfo
from icgpt.principal import to_text

HERE = Path(__file__).parent


@pytest.fixture
def counter(local: NetworkInfo) -> str:
    raw = Raw(local.url, local.root_key)
    return to_text(raw.new(wasm(COUNTER)))


def results_of(command: list[str], folder: Path, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def login(local: NetworkInfo) -> dict[str, Any]:
    """What Internet Identity would leave in a browser: a delegation that a canister has signed."""
    raw = Raw(local.url, local.root_key)
    issuer, session = Issuer(raw, raw.new()), Ed25519(31)
    link = delegate(issuer, session, time.time_ns() + 10 * MINUTE)
    delegation = {
        "expiration": hex(link["delegation"]["expiration"])[2:],
        "pubkey": session.der.hex(),
    }
    signed = {"delegation": delegation, "signature": link["signature"].hex()}
    chain = {"delegations": [signed], "publicKey": issuer.der.hex()}
    return {"secret": session.key.private_bytes_raw().hex(), "chain": chain}


@pytest.mark.parametrize("packages", ["icp-sdk", "dfinity"])
def test_agent_js(packages: str, local: NetworkInfo, counter: str, tmp_path: Path) -> None:
    if not has_node({"icp-sdk": "@icp-sdk/core", "dfinity": "@dfinity/agent"}[packages]):
        pytest.skip("agent-js is not installed")
    (tmp_path / "node_modules").symlink_to(MODULES)
    shutil.copy(HERE / "agent.mjs", tmp_path)
    command = ["node", "agent.mjs", packages, local.url, counter, json.dumps(login(local))]
    results = results_of(command, tmp_path)
    names = ["anonymous", "ed25519", "p256", "secp256k1", "login", "delegated"]
    if packages == "dfinity":
        names.remove("secp256k1")  # in a package of its own there
    for count, name in enumerate(names, 7):
        assert results.pop(name) == {"value": [count, count + 1, count + 1]}, name
    assert "Canister called `ic0.trap` with message: 'boom!'" in results["boom"]["error"]
    assert "IC0536" in results["nothing"]["error"]
    # The client does verify: under another root key, neither answer holds.
    for name in ("wrongKeyUpdate", "wrongKeyQuery"):
        assert "TrustError: Certificate verification error" in results[name]["error"]
    assert results["many"] == {"value": 20}
    assert results["management"] == {"value": "running"}
    assert results["metadata"]["value"]["controllers"] == 1
    assert len(results["metadata"]["value"]["hash"]) == 64


@pytest.mark.skipif(not (PYTHON / "icp_core").is_dir(), reason="icp-py-core is not installed")
def test_icp_py_core(local: NetworkInfo, counter: str, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "core_client.py")]
    command += [local.url, local.root_key.hex(), counter]
    # It wants blst's binding, which no registry has; the shim gives it the same by other means.
    path = os.pathsep.join([str(PYTHON), str(HERE / "shim")])
    results = results_of(command, tmp_path, PYTHONPATH=path)
    for count, name in enumerate(("ed25519", "secp256k1"), 7):
        values = [answer[0]["value"] for answer in results[name]["value"]]
        assert values == [count, count + 1, count + 1]
    assert "boom!" in results["boom"]["error"]
    assert results["fetched"]["value"][0]["value"] == 9
    assert results["create"] == {"value": True}
    assert "BLS signature verification failed" in results["wrong key"]["error"]

"""What the network shows of itself."""

from __future__ import annotations

import re

import pytest
import requests
from replica_kit import Raw, lookup

from icgpt.principal import from_text, to_text
from icgpt.replica.native import cycles_ledger, icp_ledger, minting


@pytest.fixture
def http() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def test_the_lists(raw: Raw, canister: bytes, http: requests.Session) -> None:
    raw.update(canister, "inc")
    raw.query(canister, "get")
    document = http.get(f"{raw.url}/_/canisters", timeout=10).json()
    (entry,) = [c for c in document["canisters"] if c["id"] == to_text(canister)]
    status = raw.status(canister)
    assert entry["status"] == "running"
    assert entry["module_hash"] == status["module_hash"].hex()
    assert entry["heap_bytes"] == status["memory_metrics"]["wasm_memory_size"]
    assert entry["queries"] == 1
    assert int(entry["cycles"]) >= status["cycles"]
    assert entry["controllers"] == [to_text(raw.sender)]
    last = http.get(f"{raw.url}/_/messages?last=2", timeout=10).json()
    assert [message["method"] for message in last] == ["inc", "canister_status"]
    assert last[0]["instructions"] > 0
    assert last[0]["status"] == "replied"
    assert http.get(f"{raw.url}/_/messages?last=x", timeout=10).status_code == 400
    empty = raw.create()
    document = http.get(f"{raw.url}/_/canisters", timeout=10).json()
    (entry,) = [c for c in document["canisters"] if c["id"] == to_text(empty)]
    assert entry["module_hash"] is None


def test_system_canisters_are_listed(raw: Raw, http: requests.Session) -> None:
    listed = http.get(f"{raw.url}/_/canisters", timeout=10).json()["system_canisters"]
    assert {entry["id"]: entry["name"] for entry in listed} == {
        to_text(icp_ledger.ID): "ICP ledger",
        to_text(cycles_ledger.ID): "cycles ledger",
        to_text(minting.ID): "cycles minting",
    }
    for entry in listed:
        canister = from_text(entry["id"])
        tree = raw.read(canister, [b"canister", canister, b"metadata", b"candid:service"])
        shown = lookup(tree, b"canister", canister, b"metadata", b"candid:service")
        assert entry["interface"].encode() == shown


def test_the_page(raw: Raw, http: requests.Session) -> None:
    page = http.get(raw.url, timeout=10)  # the bare address leads there
    assert page.url.endswith("/_/dashboard")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    # It fetches the lists that there are, and nothing from elsewhere.
    for path in re.findall(r'get\("([^"]+)"\)', page.text):
        assert http.get(raw.url + path, timeout=10).status_code == 200
    assert not re.search(r"https?://", page.text)


def test_other_origins_may_not_read_it(raw: Raw, http: requests.Session) -> None:
    for path in ("/_/dashboard", "/_/canisters", "/_/messages"):
        response = http.get(raw.url + path, timeout=10)
        assert "Access-Control-Allow-Origin" not in response.headers
        foreign = http.get(raw.url + path, headers={"Host": "example.org"}, timeout=10)
        assert foreign.status_code == 403

"""Names of networks, and root keys that are pinned on first use."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_network import ROOT, SUBNET, FakeNetwork

from icgpt import connect
from icgpt.certificate import MAINNET_ROOT_KEY
from icgpt.errors import NetworkError, UsageError, VerificationError


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICGPT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("ICGPT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("ICGPT_NETWORK", raising=False)
    # Whatever runs on the usual port of this machine is none of the test's business.
    monkeypatch.setattr(connect, "LOCAL_URL", "http://127.0.0.1:1")


def test_mainnet_needs_no_question() -> None:
    network = connect.resolve("ic")
    assert network.root_key == MAINNET_ROOT_KEY
    assert network.mainnet
    for url in ("https://icp0.io", "https://a.icp-api.io/"):
        assert connect.resolve(url).root_key == MAINNET_ROOT_KEY


def test_the_local_network_is_not_running() -> None:
    with pytest.raises(NetworkError, match="isn't running") as caught:
        connect.resolve()
    assert "icgpt network start" in (caught.value.hint or "")


def test_another_programs_network_is_offered_and_never_taken_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FakeNetwork() as fake:
        monkeypatch.setattr(connect, "LOCAL_URL", fake.url)
        with pytest.raises(NetworkError, match="isn't running") as caught:
            connect.resolve()
        assert f"--network {fake.url}" in (caught.value.hint or "")
        assert connect.resolve(fake.url).name == "local"


@pytest.mark.parametrize(
    "text", ["", "x", "ftp://a", "http://", "http://example.org", "http://[", "https://a:b"]
)
def test_what_is_no_network(text: str) -> None:
    with pytest.raises((UsageError, NetworkError)):
        connect.resolve(text)


def test_keys_are_pinned_on_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeNetwork() as fake:
        first = connect.resolve(fake.url + "/")
        assert first.root_key == ROOT.key
        assert not first.mainnet
        assert connect.resolve(fake.url) == first
        connect.pin(fake.url, SUBNET.key)
        with pytest.raises(VerificationError, match="another root key") as caught:
            connect.resolve(fake.url)
        assert caught.value.exit_code == 5
        connect.pin(fake.url, ROOT.key)
        monkeypatch.setenv("ICGPT_NETWORK", fake.url)
        assert connect.resolve() == first


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}'])
def test_a_damaged_file_of_pins(text: str) -> None:
    path = connect.pins_path()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with FakeNetwork() as fake, pytest.raises(VerificationError, match="root"):
        connect.resolve(fake.url)


def test_pins_of_several_processes_are_all_kept() -> None:
    urls = [f"http://127.0.0.1:{port}" for port in range(2000, 2016)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda url: connect.pin(url, ROOT.key), urls))
    assert sorted(json.loads(connect.pins_path().read_text())) == urls
    # Whoever comes second takes what the first one has pinned.
    assert connect.pin(urls[0], SUBNET.key, again=False) == ROOT.key.hex()
    assert connect.pin(urls[0], SUBNET.key) == SUBNET.key.hex()

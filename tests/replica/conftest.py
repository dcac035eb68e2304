"""A local network for the subnet's tests, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from replica_kit import Raw

from icgpt import network


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[network.NetworkInfo]:
    folder: Path = tmp_path_factory.mktemp("replica")
    info = network.start(folder, port=0)
    yield info
    network.stop(folder)


@pytest.fixture
def raw(running: network.NetworkInfo) -> Raw:
    return Raw(running.url, running.root_key)


@pytest.fixture
def canister(raw: Raw) -> bytes:
    return raw.new()

"""A service for the model in the box, on one engine, which tests must not change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serve_kit import Served, served

from icgpt.checkpoint import open_checkpoint
from icgpt.serve.local import LocalBackend
from icgpt.serve.settings import Settings


@pytest.fixture(scope="session")
def shakespeare_service() -> Iterator[Served]:
    """It has a key, `secret`."""
    backend = LocalBackend(open_checkpoint("shakespeare-char"))
    with served(backend, Settings(api_keys=("other", "secret"), at_once=4)) as running:
        yield running

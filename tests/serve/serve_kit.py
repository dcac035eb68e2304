"""A service on a port of its own, in a thread: what clients of all kinds are tried against."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

pytest.importorskip("fastapi", reason="FastAPI is missing: pip install 'icgpt[serve]'")

from fastapi import FastAPI

from icgpt.serve.app import build
from icgpt.serve.backend import Backend
from icgpt.serve.desk import Desk
from icgpt.serve.running import bound, serve, urls
from icgpt.serve.settings import Settings
from icgpt.serve.tasks import Tasks

SECONDS = 60


@dataclass
class Served:
    """A running service."""

    url: str
    app: FastAPI

    @property
    def desk(self) -> Desk:
        """Where its answers are asked for."""
        desk: Desk = self.app.state.desk
        return desk


@contextmanager
def served(
    backend: Backend, settings: Settings | None = None, tasks: Tasks | None = None
) -> Iterator[Served]:
    """Serves a backend until the block ends."""
    settings = settings or Settings()
    app = build(backend, settings, tasks)
    sockets = bound(settings.host, (0,))
    ready = threading.Event()
    ends = threading.Event()
    running = threading.Thread(
        target=serve, args=(app, settings, sockets, ready.set), kwargs={"until": ends}, daemon=True
    )
    running.start()
    assert ready.wait(SECONDS)
    try:
        yield Served(urls(settings.host, sockets)[0], app)
    finally:
        ends.set()
        running.join(SECONDS)
        assert not running.is_alive()

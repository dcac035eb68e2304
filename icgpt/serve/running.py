"""Puts an application on addresses, and takes it off again without cutting answers.

All ports are served by one application. SIGTERM and Ctrl-C end it: no new requests are taken in,
and those that are being answered have some seconds to go on.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import uvicorn
from fastapi import FastAPI

from icgpt.serve import log
from icgpt.serve.errors import AddressError
from icgpt.serve.settings import Settings

_BACKLOG = 2048


def bound(host: str, ports: Sequence[int]) -> list[socket.socket]:
    """A listening socket for each port, 0 being any; AddressError where one can't be had."""
    sockets: list[socket.socket] = []
    try:
        for port in ports:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            sockets.append(listener := socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(_BACKLOG)
    except OSError as error:
        for one in sockets:
            one.close()
        words = error.strerror or str(error)
        raise AddressError(f"can't listen on {host}, port {port}: {words}") from error
    return sockets


def urls(host: str, sockets: Sequence[socket.socket]) -> list[str]:
    """The addresses of listening sockets."""
    shown = f"[{host}]" if ":" in host else host
    return [f"http://{shown}:{one.getsockname()[1]}" for one in sockets]


def serve(
    app: FastAPI,
    settings: Settings,
    sockets: Sequence[socket.socket],
    ready: Callable[[], None] = lambda: None,
    until: threading.Event | None = None,
) -> None:
    """Serves until a signal ends it.

    Args:
        app: from `build`.
        settings: how long answers may go on at the end.
        sockets: from `bound`.
        ready: called once requests are answered.
        until: ends it, too, where no signal can: outside the main thread.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    log.begin()
    with _ended_by_signals():
        try:
            _Server(config, ready, until).run(sockets=list(sockets))
        except SystemExit as ended:
            raise getattr(app.state, "failure", None) or ended from None


class _Server(uvicorn.Server):
    """Tells when it has started, and can be ended from another thread."""

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], until: threading.Event | None
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._until = until

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Looks ten times a second whether it is to end."""
        return await super().on_tick(counter) or (self._until is not None and self._until.is_set())


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """The server raises the signal that ended it again: that is its normal end here."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)

"""HTTP to one network: pooled keep-alive connections, size caps, one time limit for all of it.

A transport performs the steps of `icgpt.steps`: it tries a request once and says what came of it.
What is tried again, and when, is decided in `icgpt.protocol`.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import socket
import threading
import time
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, Self
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from icgpt.steps import Answer, Fault, Outcome, Pause, Request, Step

MAX_ANSWER_BYTES: Final = 8 << 20
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
CONNECT_SECONDS: Final = 5.0
CONNECTIONS: Final = 16
# Packed answers are neither asked for nor read: a few bytes can unpack to gigabytes.
_PLAIN: Final = {"Accept-Encoding": "identity"}
_CBOR: Final = {**_PLAIN, "Content-Type": "application/cbor"}


class Closing:
    """A context manager that closes itself at its end."""

    def close(self) -> None:
        """Ends what is open."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *how: object) -> None:
        self.close()


class AsyncClosing:
    """The same, awaited."""

    async def close(self) -> None:
        """Ends what is open."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *how: object) -> None:
        await self.close()


class Transport(Closing):
    """Blocking HTTP. `close()` it, or use it as a context manager; threads may share it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = self._new_session()

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = by_proxy(self.url)
        session.cookies.set_policy(_NoCookies())
        adapter = _Adapter(pool_connections=1, pool_maxsize=CONNECTIONS, max_retries=0)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        return session

    def perform(self, step: Step) -> Outcome:
        """Does what a step says."""
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        _limit.deadline = time.monotonic() + step.seconds
        try:
            if step.fresh:
                with self._new_session() as session:
                    return self._once(session, step)
            return self._once(self._session, step)
        except requests.RequestException as error:
            return _fault(error)
        finally:
            _limit.deadline = None

    def _once(self, session: requests.Session, step: Request) -> Answer | Fault:
        with session.request(
            "GET" if step.body is None else "POST",
            self.url + step.path,
            data=step.body,
            headers=request_headers(step),
            timeout=(CONNECT_SECONDS, step.seconds),
            stream=True,
            allow_redirects=False,
        ) as response:
            if (fault := unreadable(response.headers.get("Content-Encoding"))) is not None:
                return fault
            parts, size = [], 0
            for part in response.iter_content(1 << 20):
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    return TOO_LARGE
            wait = seconds_to_wait(response.headers.get("Retry-After"))
            return Answer(response.status_code, b"".join(parts), wait)

    def close(self) -> None:
        """Ends the connections."""
        self._session.close()


# --- What the blocking and the awaiting transport share


TOO_LARGE: Final = Fault("an answer larger than any may be", False, answered=True)


def by_proxy(url: str) -> bool:
    """Whether the environment's proxy is used: it has no way to this machine's own loopback."""
    return urlsplit(url).hostname not in LOOPBACK


def request_headers(step: Request) -> dict[str, str]:
    """The headers of a request."""
    headers = _PLAIN if step.body is None else _CBOR
    return {**headers, "Connection": "close"} if step.fresh else headers


def unreadable(encoding: str | None) -> Fault | None:
    """The fault of an answer in an encoding that was not asked for."""
    if encoding in (None, "", "identity"):
        return None
    return Fault("a compressed answer, unasked", False, answered=True)


def seconds_to_wait(header: str | None, now: float | None = None) -> float | None:
    """What Retry-After asks for, in seconds or as a date; None when it asks for nothing."""
    header = (header or "").strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        then = email.utils.parsedate_to_datetime(header).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, then - (time.time() if now is None else now))


# --- Faults


def _fault(error: requests.RequestException) -> Fault:
    if isinstance(error, requests.exceptions.SSLError):
        return Fault("its TLS certificate does not hold", False, sent=False, untrusted=True)
    causes = _causes(error)
    if any(isinstance(one, ConnectionRefusedError) for one in causes):
        return Fault("connection refused", passing=False, sent=False)
    if any(isinstance(one, socket.gaierror) for one in causes):
        return Fault("unknown host", passing=False, sent=False)
    if isinstance(error, requests.ConnectTimeout):
        return Fault("no connection in time", sent=False)
    if any(isinstance(one, urllib3.exceptions.NewConnectionError) for one in causes):
        return Fault("no way to it", sent=False)
    if isinstance(error, requests.Timeout) or any(isinstance(o, TimeoutError) for o in causes):
        return Fault("no answer in time")
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return Fault("connection broken")
    return Fault(type(error).__name__, passing=False)


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what it wraps; requests keeps the inner ones in several places."""
    found: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and all(one is not other for other in found):
            found.append(one)
            todo += [getattr(one, "reason", None), one.__cause__, one.__context__, *one.args]
    return found


# --- One time limit for a whole exchange
#
# The time-outs of requests begin anew with each byte, so that a trickle never ends. Here every
# wait is given what is left until the deadline of the thread's exchange.


class _Limit(threading.local):
    deadline: float | None = None

    def left(self) -> float | None:
        """Seconds; TimeoutError when there are none left."""
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for this exchange is over")
        return left


_limit = _Limit()


class _TimedReader(io.RawIOBase):
    """A socket's incoming bytes, as long as there is time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_limit.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **more: Any) -> None:
        super().__init__(sock, *arguments, **more)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedReader(sock), 64 << 10)


class _Timed:
    """Mixed into urllib3's connections."""

    response_class: Any = _TimedResponse
    sock: socket.socket | None

    def send(self, data: Any) -> None:
        # A plain socket's `sendall` keeps the limit for the whole of it.
        if self.sock is not None:
            self.sock.settimeout(_limit.left())
        super().send(data)  # type: ignore[misc]


class _TimedHTTPConnection(_Timed, HTTPConnection):
    pass


class _TimedHTTPSConnection(_Timed, HTTPSConnection):
    pass


class _TimedHTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _TimedHTTPConnection


class _TimedHTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TimedHTTPSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more)
        self._time(self.poolmanager)

    def proxy_manager_for(self, *arguments: Any, **more: Any) -> Any:
        return self._time(super().proxy_manager_for(*arguments, **more))

    @staticmethod
    def _time(manager: Any) -> Any:
        manager.pool_classes_by_scheme = {"http": _TimedHTTPPool, "https": _TimedHTTPSPool}
        return manager


class _NoCookies(DefaultCookiePolicy):
    """A network has no business to mark its callers."""

    def set_ok(self, *arguments: Any) -> bool:
        return False

"""HTTP to one network: pooled keep-alive connections, size caps, retries with back-off.

What is sent again is the same bytes, so the network sees the same request id and does the work
once. Only what may pass by itself is tried again: broken connections, 429, 502, 503, 504.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from icgpt.errors import NetworkError

MAX_ANSWER_BYTES: Final = 8 << 20
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
CONNECT_SECONDS: Final = 5.0
TRANSIENT: Final = frozenset({429, 502, 503, 504})
_MAY_PASS: Final = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
# Packed answers are neither asked for nor read: a few bytes can unpack to gigabytes.
_PLAIN: Final = {"Accept-Encoding": "identity"}
_CBOR: Final = {**_PLAIN, "Content-Type": "application/cbor"}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer that came in whole."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The beginning of the body, for messages."""
        return self.body[:500].decode("utf-8", "replace").strip()


class Closing:
    """A context manager that closes itself at its end."""

    def close(self) -> None:
        """Ends what is open."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *how: object) -> None:
        self.close()


class Transport(Closing):
    """The HTTP side of an agent. `close()` it, or use it as a context manager."""

    def __init__(self, url: str, attempts: int = 6) -> None:
        self.url = url.rstrip("/")
        self.attempts = attempts
        self._session = requests.Session()
        # A proxy from the environment has no way to this machine's own loopback.
        self._session.trust_env = urlsplit(self.url).hostname not in LOOPBACK
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=8, max_retries=0)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def get(self, path: str, read_seconds: float = 10.0) -> Answer:
        """GET, tried again while the fault may pass."""
        return self._send("GET", path, None, read_seconds, time.monotonic() + 2 * read_seconds)

    def post(self, path: str, body: bytes, read_seconds: float, deadline: float) -> Answer:
        """POST of CBOR; `deadline` (monotonic seconds) ends the attempts."""
        return self._send("POST", path, body, read_seconds, deadline)

    def _send(
        self, method: str, path: str, body: bytes | None, read_seconds: float, deadline: float
    ) -> Answer:
        pause = 0.1
        fault: Exception | None
        for attempt in range(1, self.attempts + 1):
            last = attempt == self.attempts
            try:
                answer, wait = self._once(method, path, body, read_seconds)
            except requests.RequestException as error:
                if not isinstance(error, _MAY_PASS) or _refused(error) or _untrusted(error):
                    raise self._unreachable(error) from error
                fault, wait = error, None
            else:
                if answer.status not in TRANSIENT or last:
                    return answer
                fault = None
            delay = max(pause, wait or 0.0)
            if last or time.monotonic() + delay > deadline:
                if fault is None:
                    return answer
                raise self._unreachable(fault) from fault
            time.sleep(delay)
            pause = min(2 * pause, 3.0)
        raise NetworkError(f"{self.url} was never asked")  # attempts was set below 1

    def _once(
        self, method: str, path: str, body: bytes | None, read_seconds: float
    ) -> tuple[Answer, float | None]:
        with self._session.request(
            method,
            self.url + path,
            data=body,
            headers=_CBOR if body is not None else _PLAIN,
            timeout=(CONNECT_SECONDS, read_seconds),
            stream=True,
            allow_redirects=False,
        ) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise NetworkError(f"{self.url} sent a compressed answer, unasked")
            parts, size = [], 0
            for part in response.iter_content(1 << 20):
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    raise NetworkError(f"{self.url} sent an answer larger than any may be")
            wait = response.headers.get("Retry-After", "")
            seconds = min(float(wait), 10.0) if wait.isdigit() else None
            return Answer(response.status_code, b"".join(parts)), seconds

    def _unreachable(self, error: Exception) -> NetworkError:
        if _untrusted(error):
            return NetworkError(
                f"the TLS certificate of {self.url} does not hold",
                "Is it the right address? Someone may be answering in its place.",
            )
        return NetworkError(
            f"{self.url} doesn't answer ({_reason(error)})",
            "Is the network running? For the local one: icgpt network start",
        )

    def close(self) -> None:
        """Ends the connections."""
        self._session.close()


def _refused(error: Exception) -> bool:
    """Whether nobody listens there: trying again at once won't help."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionRefusedError):
            return True
        inner = getattr(seen, "reason", None) or (seen.args[0] if seen.args else None)
        if not isinstance(inner, BaseException):
            inner = seen.__cause__ or seen.__context__
        seen = inner
    return False


def _untrusted(error: Exception) -> bool:
    """Whether the other side could not show that it is who it should be."""
    return isinstance(error, requests.exceptions.SSLError)


def _reason(error: Exception) -> str:
    if _refused(error):
        return "connection refused"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        text = str(error)
        if "resolve" in text or "Name or service" in text:
            return "unknown host"
        return "connection broken"
    return type(error).__name__

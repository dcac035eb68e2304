"""The HTTP side of an `AsyncAgent`: what `icgpt.transport` does, for asyncio.

aiohttp is imported on first use: the blocking client can do without it.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from typing import TYPE_CHECKING, Any, Final

from icgpt.errors import UsageError
from icgpt.steps import Answer, Fault, Outcome, Pause, Request, Step
from icgpt.transport import (
    CONNECT_SECONDS,
    MAX_ANSWER_BYTES,
    TOO_LARGE,
    by_proxy,
    request_headers,
    seconds_to_wait,
    unreadable,
)

if TYPE_CHECKING:
    import aiohttp

_CONNECTIONS: Final = 100  # a call that the network holds open takes one for ten seconds


class AsyncTransport:
    """HTTP to one network, for one event loop."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def perform(self, step: Step) -> Outcome:
        """Does what a step says."""
        import aiohttp

        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            async with asyncio.timeout(step.seconds):
                if step.fresh:
                    async with self._new_session() as session:
                        return await self._once(session, step)
                return await self._once(self._kept_session(), step)
        except (aiohttp.ClientError, OSError) as error:
            return _fault(error)

    def _kept_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None:
            self._session, self._loop = self._new_session(), loop
        if self._loop is not loop:
            raise UsageError(
                "an AsyncAgent was used in two event loops",
                "Make one within each asyncio.run, with `async with`.",
            )
        return self._session

    def _new_session(self) -> aiohttp.ClientSession:
        import aiohttp

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=_trusted(self.url)),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=by_proxy(self.url),
            auto_decompress=False,
        )

    async def _once(self, session: aiohttp.ClientSession, step: Request) -> Answer | Fault:
        async with session.request(
            "GET" if step.body is None else "POST",
            self.url + step.path,
            data=None if step.body is None else io.BytesIO(step.body),
            headers=request_headers(step),
            allow_redirects=False,
        ) as response:
            if (fault := unreadable(response.headers.get("Content-Encoding"))) is not None:
                return fault
            parts, size = [], 0
            async for part in response.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    return TOO_LARGE
            wait = seconds_to_wait(response.headers.get("Retry-After"))
            return Answer(response.status, b"".join(parts), wait)

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()


def _trusted(url: str) -> Any:
    """The certificate authorities that requests trusts, and the system's own."""
    if not url.startswith("https:"):
        return True
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _fault(error: Exception) -> Fault:
    import aiohttp

    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return Fault("its TLS certificate does not hold", False, sent=False, untrusted=True)
        case aiohttp.ClientConnectorDNSError():
            return Fault("unknown host", passing=False, sent=False)
        case aiohttp.ClientConnectorError(os_error=inner):
            if _refused(inner):
                return Fault("connection refused", passing=False, sent=False)
            return Fault("no way to it", sent=False)
        case aiohttp.ConnectionTimeoutError():
            return Fault("no connection in time", sent=False)
        case TimeoutError():
            return Fault("no answer in time")
        case aiohttp.InvalidURL() | aiohttp.TooManyRedirects():
            return Fault(type(error).__name__, passing=False)
    return Fault("connection broken")


def _refused(error: BaseException) -> bool:
    """Whether nobody listens at any of the host's addresses."""
    inner = getattr(error, "exceptions", None)
    return all(map(_refused, inner)) if inner else isinstance(error, ConnectionRefusedError)

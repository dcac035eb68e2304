"""Around every request: its id, a bounded body, an end when its caller has gone, a line in the log.

The body is read whole before a route sees it, and after that only one thing can still come from
the caller: that they hang up. Then the route's task is cancelled, and with it the answer that it
waits for, streamed or not.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from icgpt.errors import UsageError
from icgpt.serve import log, problems
from icgpt.serve.errors import TooLargeError
from icgpt.serve.figures import Figures
from icgpt.serve.record import Record, current
from icgpt.serve.settings import Settings

_ID: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)
_JSON: Final = b"application/json"
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST")
_GONE: Final = 499  # as other servers note a caller who hung up


class Around:
    """The application with all of that around it."""

    def __init__(self, app: ASGIApp, settings: Settings, figures: Figures) -> None:
        self._app = app
        self._settings = settings
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        noted = _noted(scope)
        token = current.set(noted)
        exchange = _Exchange(scope, receive, send, noted)
        try:
            await self._answer(exchange)
        finally:
            current.reset(token)
            self._note(scope, noted, exchange.status)

    async def _answer(self, exchange: _Exchange) -> None:
        scope = exchange.scope
        try:
            body = await exchange.body(self._settings.max_body_bytes)
            if body is not None and not _is_text(body):
                raise UsageError("a text in the request is no valid Unicode")
        except (TooLargeError, UsageError) as error:
            response = problems.answer(scope["path"], problems.problem_of(error))
            response.headers["Connection"] = "close"  # what is left of it is not read
            await response(scope, exchange.receive, exchange.send)
            return
        if body is None:
            return
        if body:
            scope["headers"] = _as_json(scope["headers"])
        await exchange.run(self._app, body)

    def _note(self, scope: Scope, noted: Record, status: int) -> None:
        seconds = time.monotonic() - noted.began
        # Not the words of the request: strangers could fill the figures with names.
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._figures.requests.labels(route, method, status).inc()
        self._figures.seconds.labels(route).observe(seconds)
        log.request(scope, noted, status, seconds)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, noted: Record) -> None:
        self.scope = scope
        self.status = _GONE
        self._receive = receive
        self._send = send
        self._id = noted.id
        self._sent = False
        self._gone = asyncio.Event()
        self._body: bytes | None = None

    async def body(self, most: int) -> bytes | None:
        """The whole body; None when the caller has gone, TooLargeError when it is too large."""
        parts: list[bytes] = []
        size = int(dict(self.scope["headers"]).get(b"content-length") or 0)
        while size <= most:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size = sum(map(len, parts))
            if size <= most and not message.get("more_body", False):
                return b"".join(parts)
        raise TooLargeError(f"the request is larger than {most:,} bytes", "Send less at once.")

    async def run(self, app: ASGIApp, body: bytes) -> None:
        """Lets the application answer, as long as the caller is there."""
        self._body = body
        work = asyncio.create_task(self._finish(app))
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not self._sent:
                work.cancel()
            await asyncio.wait((work,))
        except asyncio.CancelledError:  # the service ends, and this answer with it
            work.cancel()
            await asyncio.wait((work,))
            raise
        finally:
            watch.cancel()
        if not work.cancelled():
            work.result()

    async def _finish(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            log.failed(self.scope)
            if self.status != _GONE:
                raise  # the answer has begun: the connection is cut
            response = problems.answer(self.scope["path"], problems.problem_of(Exception()))
            await response(self.scope, self.receive, self.send)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()

    async def receive(self) -> Message:
        """What the application gets: the body, and later that the caller has gone."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """What the application sends, with the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self._id.encode())]
            message = {**message, "headers": headers}
        elif not message.get("more_body", False):
            self._sent = True
        await self._send(message)


def _is_text(body: bytes) -> bool:
    """Whether what a body escapes is text: half of a surrogate pair can't be written on."""
    if not _SURROGATE.search(body):
        return True
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    except (ValueError, RecursionError):
        pass  # no JSON at all, which the route says in its own words
    return True


def _noted(scope: Scope) -> Record:
    """A record under the id that the caller gave, if it is one that a log can hold."""
    given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    return Record(id=given) if _ID.fullmatch(given) else Record()


def _as_json(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of a body, which is JSON here whatever it is called: curl calls it a form.

    Not so where a web page sends it: what is no JSON may come from any page without being asked
    for, so it stays what it is, and is refused.
    """
    found = dict(headers)
    if b"origin" in found or found.get(b"content-type", b"").startswith(_JSON):
        return headers
    kept: list[Any] = [one for one in headers if one[0] != b"content-type"]
    return [*kept, (b"content-type", _JSON)]

"""Server-sent events: documents that are sent one by one while an answer is written."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from icgpt.serve import log

DONE: Final = "[DONE]"


def event(document: Any) -> bytes:
    """A document as one event."""
    text = document if isinstance(document, str) else json.dumps(document, allow_nan=False)
    return b"data: " + text.encode() + b"\n\n"


class EventStream(Response):
    """An answer of events.

    Args:
        events: the documents.
        close: called at the end, also where nothing could be sent.
        failed: the document that tells of an error after the stream has begun.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[Any, None],
        close: Callable[[], Awaitable[None]],
        failed: Callable[[Exception], Any],
    ) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(None, 200, headers, self.media_type)
        del self.headers["content-length"]
        self._events = events
        self._close = close
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events until there are no more, or the caller has gone."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            async with aclosing(self._events) as events:
                await send(start)
                try:
                    async for one in events:
                        await send(_body(event(one)))
                except Exception as error:  # noqa: BLE001 - the status is sent: this tells it
                    log.failed(scope)
                    await send(_body(event(self._failed(error))))
                await send(_body(b"", more=False))
        finally:
            await self._close()


def _body(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}

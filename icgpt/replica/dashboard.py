"""What the network shows of itself: a page with its canisters and the last messages.

The page (`dashboard.html`) reads the two lists below every few seconds; scripts may do so too.
Nothing can be changed here, and pages of other origins may not read it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from aiohttp import web

from icgpt.principal import to_text
from icgpt.replica.gateway import LOOPBACK
from icgpt.replica.ingress import RequestError
from icgpt.replica.routing import Hosted
from icgpt.replica.subnet import Subnet

PAGE = "/_/dashboard"
_FILE = Path(__file__).with_name("dashboard.html")
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)


class Dashboard:
    """The page and its lists."""

    def __init__(self, subnet: Subnet) -> None:
        self._subnet = subnet
        self._since = time.time()

    def add_routes(self, app: web.Application) -> None:
        """Offer the page and its lists."""
        app.router.add_get(PAGE, self.page)
        app.router.add_get("/_/canisters", self.canisters)
        app.router.add_get("/_/messages", self.messages)

    async def page(self, http: web.Request) -> web.Response:
        """Give the page."""
        _check_host(http)
        headers = {"Content-Security-Policy": _POLICY}
        return web.Response(text=_FILE.read_text(), content_type="text/html", headers=headers)

    async def canisters(self, http: web.Request) -> web.Response:
        """List the canisters."""
        _check_host(http)
        hosted = list(self._subnet.router.hosted.values())
        document = {
            "subnet": to_text(self._subnet.subnet_id),
            "since": self._since,
            "canisters": [_described(item) for item in hosted],
            "system_canisters": self._system(),
        }
        return web.json_response(document)

    def _system(self) -> list[dict[str, Any]]:
        """What the network plays itself has no code and pays nothing."""
        views = self._subnet.router.views
        return [
            {
                "id": to_text(canister),
                "name": name,
                "interface": views[canister].metadata["candid:service"].decode(),
            }
            for canister, name in self._subnet.natives.names.items()
        ]

    async def messages(self, http: web.Request) -> web.Response:
        """List the users' last messages with the instructions that they took."""
        _check_host(http)
        try:
            last = int(http.query.get("last", "20"))
        except ValueError as error:
            raise RequestError(400, "`last` is a number of messages") from error
        records = [
            {
                "request_id": record.request_id.hex(),
                "canister": to_text(record.canister),
                "method": record.method,
                "received": record.received,
                "status": record.status,
                "instructions": record.instructions,
                "page_instructions": record.page_instructions,
                "messages": record.messages,
            }
            for record in self._subnet.messages(last)
        ]
        return web.json_response(records)


def _check_host(http: web.Request) -> None:
    """Refuse names that somebody else's server may have given to this machine."""
    host = http.host.lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name not in LOOPBACK and not name.endswith(".localhost"):
        raise RequestError(403, "This page is for this machine alone.")


def _described(hosted: Hosted) -> dict[str, Any]:
    record, code = hosted.record, hosted.code
    return {
        "id": to_text(record.id),
        "status": record.status,
        "module_hash": code.module_hash.hex() if code.module_hash else None,
        "module_bytes": record.module_bytes,
        "heap_bytes": code.heap_bytes,
        "stable_bytes": code.stable_bytes,
        "memory_bytes": hosted.memory,
        # As text: more than what numbers hold in JavaScript.
        "cycles": str(hosted.balance),
        "cycles_per_day": str(hosted.idle_per_second * 86_400),
        "controllers": [to_text(controller) for controller in record.settings.controllers],
        "version": record.version,
        "queries": record.queries,
    }

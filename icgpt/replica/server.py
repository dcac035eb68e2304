"""The HTTP interface of the local network, as the platform's boundary offers it.

Status, calls (v2 asynchronous; v3 and v4 answer with a certificate when it comes within ten
seconds), queries with the node's signature, and certified reads of the state. The loop never
waits for a running message: what needs the worker is awaited, all else is answered at once.
See https://internetcomputer.org/docs/references/ic-interface-spec#http-interface.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from icgpt.principal import MANAGEMENT, from_text, to_text
from icgpt.replica import rejects
from icgpt.replica.certification import cbor
from icgpt.replica.dashboard import PAGE, Dashboard
from icgpt.replica.gateway import Gateway, GatewayError
from icgpt.replica.history import FINAL
from icgpt.replica.ingress import Request, RequestError, hash_map, parse
from icgpt.replica.messages import Kind, Reject
from icgpt.replica.read_state import check_paths, check_subnet_paths
from icgpt.replica.rejects import RejectError
from icgpt.replica.subnet import Subnet

MAX_BODY = 4 << 20
MAX_INGRESS = 2 << 20
SYNC_SECONDS = 10.0
UPGRADE_SECONDS = 60.0  # for a web page that a canister answers with an update
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Accept, Authorization, Content-Type",
}


class Server:
    """Answers HTTP requests for a subnet. `announce` is to be called when requests finish.

    `delay` is added to every call, in seconds, for those who want to see a slow network;
    `domains` and `names` say which hosts are canisters (see `gateway.py`).
    """

    def __init__(
        self, *, delay: float = 0.0, domains: tuple[str, ...] = (), names: Path | None = None
    ) -> None:
        self._delay = delay
        self._domains = domains
        self._names = names
        self._gateway: Gateway | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}
        self._subnet: Subnet | None = None
        self._closing = False

    @property
    def subnet(self) -> Subnet:
        """The subnet that is served."""
        if self._subnet is None:
            raise RuntimeError("the server has no subnet yet")
        return self._subnet

    def serve(self, subnet: Subnet) -> web.Application:
        """Return the web application for a subnet; call it within the running loop."""
        self._subnet = subnet
        self._loop = asyncio.get_running_loop()
        self._gateway = Gateway(
            subnet.root_key, self._ask_query, self._run_update, self._domains, self._names
        )
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_finish_response])
        app.router.add_get("/api/v2/status", self.status)
        for version in ("v2", "v3", "v4"):
            route = f"/api/{version}/canister/{{id}}/call"
            app.router.add_post(route, self.call_v2 if version == "v2" else self.call_sync)
        for version in ("v2", "v3"):
            app.router.add_post(f"/api/{version}/canister/{{id}}/query", self.query)
            app.router.add_post(f"/api/{version}/canister/{{id}}/read_state", self.read_state)
            app.router.add_post(f"/api/{version}/subnet/{{id}}/read_state", self.read_subnet)
        Dashboard(subnet).add_routes(app)
        app.router.add_route("*", "/{path:.*}", self.page)
        return app

    def announce(self, finished: list[bytes]) -> None:
        """Wake whoever waits for these requests; may be called from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake, finished)

    def close(self) -> None:
        """Let nobody wait any longer."""
        self._closing = True
        self._wake(list(self._waiting))

    def _parse(self, body: bytes, kind: str) -> Request:
        return parse(body, kind, time.time_ns(), self.subnet.verifier)

    def _wake(self, finished: list[bytes]) -> None:
        for request_id in finished:
            for future in self._waiting.pop(request_id, ()):
                if not future.done():
                    future.set_result(None)

    # --- handlers

    async def status(self, _http: web.Request) -> web.Response:
        """Tell that the network is there, and its root key."""
        return _cbor_response(
            {
                "ic_api_version": "0.18.0",
                "impl_version": "icgpt",
                "replica_health_status": "healthy",
                "root_key": self.subnet.root_key,
                "certified_height": sum(self.subnet.version()) + 1,
            }
        )

    async def _admit(self, http: web.Request) -> Request:
        """Authenticate a call and let it in; raises RequestError or RejectError."""
        effective = _effective_id(http)
        body = await http.read()
        request = self._parse(body, "call")
        if len(body) > MAX_INGRESS:
            text = (
                f"Request 0x{request.id.hex()} is too large. Message byte size {len(body)} is "
                f"larger than the max allowed {MAX_INGRESS}."
            )
            raise RequestError(413, text)
        if self.subnet.history.get(request.id) is not None:
            return request
        subject = self.subnet.check(request)
        _check_effective(effective, subject, request)
        await self._let_in(request, subject)
        return request

    async def _let_in(self, request: Request, subject: bytes | None = None) -> None:
        """Let a message in that may come in; raises RejectError. `subject` pays for it."""
        if subject is None:
            subject = self.subnet.check(request)
        if self.subnet.inspects(request.canister_id):
            question = self.subnet.ask(Kind.INSPECT, request)
            answer = await asyncio.wrap_future(question)
            if answer.reject is not None:
                raise RejectError(answer.reject)
        if self._delay:
            await asyncio.sleep(self._delay)
        self.subnet.submit(request, subject)

    async def call_v2(self, http: web.Request) -> web.Response:
        """Let a message in; its answer is to be had from the state."""
        try:
            await self._admit(http)
        except RejectError as error:
            return _cbor_response(_refused(error.reject))
        return web.Response(status=202)

    async def call_sync(self, http: web.Request) -> web.Response:
        """Let a message in, and answer with the certificate of what became of it."""
        try:
            request = await self._admit(http)
        except RejectError as error:
            return _cbor_response(_refused(error.reject))
        if not await self._finished(request.id):
            return web.Response(status=202, text="Request accepted; read its status later.")
        certificate = self.subnet.signed().certificate([(b"request_status", request.id)])
        return _cbor_response({"status": "replied", "certificate": certificate})

    async def _finished(self, request_id: bytes, seconds: float | None = None) -> bool:
        entry = self.subnet.history.get(request_id)
        if entry is not None and entry.status not in FINAL and not self._closing:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(request_id, set())
            waiting.add(future)
            try:
                await asyncio.wait_for(future, SYNC_SECONDS if seconds is None else seconds)
            except TimeoutError:
                waiting.discard(future)
        entry = self.subnet.history.get(request_id)
        return entry is not None and entry.status in FINAL

    async def query(self, http: web.Request) -> web.Response:
        """Run a query and sign what it gave."""
        effective = _effective_id(http)
        request = self._parse(await http.read(), "query")
        subject = request.canister_id
        if subject == MANAGEMENT:
            subject = self.subnet.management.query_subject(request.method, request.arg)
        _check_effective(effective, subject, request)
        question = self.subnet.ask(Kind.QUERY, request)
        answer = await asyncio.wrap_future(question)
        if answer.reject is None:
            content: dict[str, Any] = {"status": "replied", "reply": {"arg": answer.reply}}
        else:
            content = {"status": "rejected", **_reject(answer.reject)}
        now = time.time_ns()
        digest = hash_map({**content, "request_id": request.id, "timestamp": now})
        signature = {
            "timestamp": now,
            "signature": self.subnet.keys.sign_response(digest),
            "identity": self.subnet.keys.node_id,
        }
        return _cbor_response({**content, "signatures": [signature]})

    async def read_state(self, http: web.Request) -> web.Response:
        """Certify the asked paths."""
        effective = _effective_id(http)
        request = self._parse(await http.read(), "read_state")
        check_paths(self.subnet, request, effective)
        return _cbor_response({"certificate": self.subnet.signed().certificate(request.paths)})

    async def read_subnet(self, http: web.Request) -> web.Response:
        """Certify paths about the subnet."""
        if _effective_id(http) != self.subnet.subnet_id:
            raise RequestError(400, "This network has one subnet only, which is another one.")
        request = self._parse(await http.read(), "read_state")
        check_subnet_paths(request)
        return _cbor_response({"certificate": self.subnet.signed().certificate(request.paths)})

    # --- web pages

    async def page(self, http: web.Request) -> web.Response:
        """Answer with a canister's page."""
        gateway = self._gateway
        if gateway is None:
            raise RuntimeError("the server has no subnet yet")
        try:
            if http.path.startswith(("/api/", "/_/")):
                raise GatewayError(404, "There is nothing of this name in the network's interface.")
            canister, raw = gateway.canister_of(http)
            if canister is None and http.path == "/" and http.method == "GET":
                raise web.HTTPFound(PAGE)
            if canister is None:
                raise GatewayError(404, "No such page here; a canister's has its id in the host.")
            return await gateway.page(http, canister, raw)
        except GatewayError as error:
            return web.Response(status=error.status, text=str(error))

    async def _ask_query(self, request: Request) -> bytes:
        answer = await asyncio.wrap_future(self.subnet.ask(Kind.QUERY, request))
        if answer.reject is not None:
            raise RejectError(answer.reject)
        return answer.reply

    async def _run_update(self, request: Request) -> bytes:
        await self._let_in(request)
        if not await self._finished(request.id, UPGRADE_SECONDS):
            raise GatewayError(504, "The canister takes too long.")
        entry = self.subnet.history.get(request.id)
        if entry is None or entry.reject is not None:
            raise RejectError(entry.reject if entry and entry.reject else rejects.not_let_in())
        return entry.reply


def _effective_id(http: web.Request) -> bytes:
    try:
        return from_text(http.match_info["id"])
    except ValueError as error:
        raise RequestError(400, f"Invalid principal in URL: {error}") from error


def _check_effective(effective: bytes, subject: bytes, request: Request) -> None:
    """Raise unless the URL names the canister that the request is about, where it is about one."""
    # Clients that know of no effective ids use the management canister's own.
    expected = {subject, MANAGEMENT} if request.canister_id == MANAGEMENT else {subject}
    if subject != MANAGEMENT and effective not in expected:
        text = (
            f"Specified CanisterId {to_text(subject)} does not match effective canister id in "
            f"URL {to_text(effective)}"
        )
        raise RequestError(400, text)


def _reject(reject: Reject) -> dict[str, Any]:
    return {
        "reject_code": reject.code,
        "reject_message": reject.message,
        "error_code": reject.error_code,
    }


def _refused(reject: Reject) -> dict[str, Any]:
    return {"status": "non_replicated_rejection", **_reject(reject)}


def _cbor_response(value: dict[str, Any]) -> web.Response:
    return web.Response(body=cbor(value), content_type="application/cbor")


@web.middleware
async def _finish_response(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn refusals into plain text, and let web pages of any origin read every answer."""
    response: web.StreamResponse
    try:
        if request.method == "OPTIONS":
            response = web.Response(status=204)
        else:
            response = await handler(request)
    except RequestError as error:
        response = web.Response(status=error.status, text=error.text)
    except web.HTTPException as error:
        error.headers.update(_CORS)
        raise
    if not request.path.startswith("/_/"):  # which tells of this machine
        for name, value in _CORS.items():
            response.headers.setdefault(name, value)
    return response

"""The HTTP gateway: web pages of canisters, at `<canister>.localhost` or with `?canisterId=`.

A request becomes a query of `http_request`, or an update where the canister asks for one. What a
query gives has to be certified, except on `<canister>.raw.localhost`, as on the platform. Names
of canisters can be given in a file of `name:canister` lines, which `icp` writes.
See https://internetcomputer.org/docs/references/http-gateway-protocol-spec.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

from icgpt.candid import (
    BLOB,
    BOOL,
    NAT16,
    TEXT,
    CandidError,
    Func,
    Opt,
    Record,
    Variant,
    Vec,
    Whole,
    decode,
    encode,
)
from icgpt.errors import VerificationError
from icgpt.principal import ANONYMOUS, from_text, to_text
from icgpt.replica.http_certification import HttpRequest, HttpResponse, verify
from icgpt.replica.ingress import Request
from icgpt.replica.messages import Reject
from icgpt.replica.rejects import RejectError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MAX_STREAM = 64 << 20  # bytes of a response that comes in pieces
EXPIRY = 240 * 10**9
_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")
_NOT_PASSED_ON = frozenset(
    ("connection", "content-length", "date", "keep-alive", "server", "transfer-encoding")
)
_PAIRS = Vec(Record({0: TEXT, 1: TEXT}))
REQUEST = Record(
    {
        "method": TEXT,
        "url": TEXT,
        "headers": _PAIRS,
        "body": BLOB,
        "certificate_version": Opt(NAT16),
    }
)
_UPDATE_REQUEST = Record({"method": TEXT, "url": TEXT, "headers": _PAIRS, "body": BLOB})
_CALLBACK = Record({"callback": Func(), "token": Whole()})
RESPONSE = Record(
    {
        "status_code": NAT16,
        "headers": _PAIRS,
        "body": BLOB,
        "upgrade": Opt(BOOL),
        "streaming_strategy": Opt(Variant({"Callback": _CALLBACK})),
    }
)
_PIECE = Record({"body": BLOB, "token": Opt(Whole())})

# Runs a query or an update; returns the reply, or raises RejectError.
Run = Callable[[Request], Awaitable[bytes]]


class GatewayError(Exception):
    """A page that can't be given, with its HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Gateway:
    """Serves canisters' pages; `domains` are the names below which they are found."""

    def __init__(
        self,
        root_key: bytes,
        query: Run,
        update: Run,
        domains: tuple[str, ...] = (),
        names: Path | None = None,
    ) -> None:
        self._root_key = root_key
        self._query = query
        self._update = update
        self._domains = tuple(dict.fromkeys((*LOOPBACK, *(name.lower() for name in domains))))
        self._names_file = names
        self._names: tuple[int, dict[str, str]] = (-1, {})

    def canister_of(self, http: web.Request) -> tuple[bytes | None, bool]:
        """Return which canister a request is for, and whether it wants uncertified answers."""
        host = http.host.lower()
        host = host if host.endswith("]") else host.rpartition(":")[0] or host
        named = self._named().get(host)
        if named is not None:
            return _principal(named), False
        for domain in self._domains:
            if host.endswith("." + domain):
                labels = host[: -len(domain) - 1].split(".")
                return _principal(labels[0]), labels[1:] == ["raw"]
        for query in (http.query_string, urlsplit(http.headers.get("Referer", "")).query):
            given = parse_qs(query).get("canisterId")
            if given:
                return _principal(given[0]), False
        return None, False

    def _named(self) -> dict[str, str]:
        """Return the canisters that have names, reading the file again when it has changed."""
        if self._names_file is None:
            return {}
        try:
            stamp = self._names_file.stat().st_mtime_ns
            if stamp != self._names[0]:
                lines = self._names_file.read_text().splitlines()
                pairs = (line.strip().lower().rpartition(":") for line in lines if ":" in line)
                self._names = (stamp, {name: canister for name, _, canister in pairs})
        except (OSError, ValueError):
            return {}
        return self._names[1]

    async def page(self, http: web.Request, canister: bytes, raw: bool) -> web.Response:
        """Answer a request with what the canister gives."""
        request = HttpRequest(
            http.method,
            http.rel_url.raw_path,
            http.rel_url.raw_query_string,
            tuple((key.lower(), value) for key, value in http.headers.items()),
            await http.read(),
        )
        try:
            response = await self._whole(request, canister, raw)
        except RejectError as error:
            raise _rejected(error.reject) from error
        except CandidError as error:
            text = f"Canister {to_text(canister)} does not speak HTTP: {error}"
            raise GatewayError(502, text) from error
        except VerificationError as error:
            raise GatewayError(503, f"Response verification failed: {error}") from error
        answer = web.Response(status=response.status, body=response.body)
        answer.headers.popall("Content-Type", None)
        for key, value in response.headers:
            if key.lower() not in _NOT_PASSED_ON:
                answer.headers.add(key, _clean(value))
        answer.headers["x-ic-canister-id"] = to_text(canister)
        return answer

    async def _whole(self, request: HttpRequest, canister: bytes, raw: bool) -> HttpResponse:
        """Return the response; where it comes in ranges nobody asked for, all of them together."""
        response = await self._ask(request, canister, raw)
        if response.status != 206 or any(key == "range" for key, _ in request.headers):
            return response
        start, total = _range(response)
        if start != 0:
            raise GatewayError(502, "The response begins in the middle.")
        body = response.body
        while len(body) < total:
            headers = (*request.headers, ("range", f"bytes={len(body)}-"))
            further = await self._ask(replace(request, headers=headers), canister, raw)
            same = further.header("etag") == response.header("etag")
            if further.status != 206 or not same or _range(further) != (len(body), total):
                raise GatewayError(502, "The ranges of the response do not fit together.")
            body += further.body
        kept = [pair for pair in response.headers if pair[0].lower() != "content-range"]
        return HttpResponse(200, tuple(kept), body)

    async def _ask(self, request: HttpRequest, canister: bytes, raw: bool) -> HttpResponse:
        url = request.path + (f"?{request.query}" if request.query else "")
        value: dict[str, Any] = {
            "method": request.method,
            "url": url,
            "headers": [{0: key, 1: text} for key, text in request.headers],
            "body": request.body,
            "certificate_version": 2,
        }
        reply = await self._query(_call(canister, "http_request", encode([REQUEST], [value])))
        (answer,) = decode(reply, [RESPONSE])
        upgraded = bool(answer["upgrade"])
        if upgraded:
            del value["certificate_version"]
            arg = encode([_UPDATE_REQUEST], [value])
            reply = await self._update(_call(canister, "http_request_update", arg, "call"))
            (answer,) = decode(reply, [RESPONSE])
        body = answer["body"]
        if answer["streaming_strategy"] is not None:
            body += await self._rest(canister, answer["streaming_strategy"]["Callback"], len(body))
        headers = tuple((pair[0], pair[1]) for pair in answer["headers"])
        response = HttpResponse(answer["status_code"], headers, body)
        if raw or upgraded:
            return response  # which came through the subnet's agreement, or may be anything
        # In a thread: large bodies take a while to unpack and hash.
        return await asyncio.to_thread(verify, request, response, canister, self._root_key)

    async def _rest(self, canister: bytes, strategy: dict[str, Any], size: int) -> bytes:
        """Fetch the further pieces of a response, by the method that the canister names."""
        (owner, method), token = strategy["callback"], strategy["token"]
        if owner != canister:
            raise GatewayError(502, "The pieces of the response are at another canister.")
        pieces: list[bytes] = []
        while token is not None:
            reply = await self._query(_call(canister, method, token))
            (piece,) = decode(reply, [_PIECE])
            pieces.append(piece["body"])
            size += len(piece["body"])
            token = piece["token"]
            if size > MAX_STREAM or (token is not None and not piece["body"]):
                raise GatewayError(502, f"The response is larger than {MAX_STREAM} bytes.")
        return b"".join(pieces)


def _call(canister: bytes, method: str, arg: bytes, kind: str = "query") -> Request:
    expiry = time.time_ns() + EXPIRY
    return Request(os.urandom(32), kind, ANONYMOUS, expiry, canister, method, arg)


def _principal(text: str) -> bytes:
    try:
        return from_text(text)
    except ValueError as error:
        raise GatewayError(400, f"{text[:63]} is no canister id.") from error


def _range(response: HttpResponse) -> tuple[int, int]:
    """Return where a partial response begins, and how long the whole one is."""
    found = _RANGE.fullmatch(response.header("content-range") or "")
    if found is None:
        raise GatewayError(502, "The response is partial, and does not say which part it is.")
    start, end, total = map(int, found.groups())
    if end - start + 1 != len(response.body) or not response.body or total > MAX_STREAM:
        raise GatewayError(
            502, f"A range of a length that can't be, or of over {MAX_STREAM} bytes."
        )
    return start, total


def _clean(value: str) -> str:
    """Return a header's value without what would end it."""
    return value.replace("\r", " ").replace("\n", " ").replace("\0", " ")


def _rejected(reject: Reject) -> GatewayError:
    """Return the error for a canister that is not there, or can't answer."""
    if reject.error_code in ("IC0301", "IC0537", "IC0536"):
        return GatewayError(404, reject.message)
    return GatewayError(502, f"{reject.message} ({reject.error_code})")

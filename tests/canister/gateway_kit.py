"""Canisters asked over HTTP: through the local network's gateway, and with somebody in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import requests
from aiohttp.test_utils import make_mocked_request

from icgpt.agent import Agent
from icgpt.network import NetworkInfo
from icgpt.principal import to_text
from icgpt.replica.gateway import Gateway
from icgpt.replica.ingress import Request

Get = Callable[..., requests.Response]


def getter(local: NetworkInfo, canister: bytes) -> Get:
    """Asks a canister by way of the gateway, which checks what comes."""
    host = f"{to_text(canister)}.localhost:{local.url.rpartition(':')[2]}"

    def run(
        path: str, method: str = "GET", stream: bool = False, **headers: str
    ) -> requests.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(
            method,
            local.url + path,
            headers={"Host": host, "Accept-Encoding": "identity", **names},
            timeout=60,
            stream=stream,
        )

    return run


def asked(path: str, method: str = "GET", **headers: str) -> dict[str, Any]:
    """A request as a gateway passes it on to a canister."""
    pairs = [{0: name.replace("_", "-"), 1: value} for name, value in headers.items()]
    return {
        "method": method,
        "url": path,
        "headers": pairs,
        "body": b"",
        "certificate_version": 2,
    }


class Meddler:
    """Between a canister and a gateway that checks what comes from it."""

    def __init__(self, agent: Agent, local: NetworkInfo) -> None:
        self.agent = agent
        self.gateway = Gateway(local.root_key, self.query, self.query)
        self.change: Callable[[bytes], bytes] = bytes

    async def query(self, request: Request) -> bytes:
        arguments = (request.canister_id, request.method, request.arg)
        return self.change(await asyncio.to_thread(self.agent.query, *arguments))

    def get(self, canister: bytes, path: str = "/") -> Any:
        return asyncio.run(self.gateway.page(make_mocked_request("GET", path), canister, False))


def swapped(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Puts other bytes in the place of some."""

    def run(reply: bytes) -> bytes:
        assert old in reply
        assert len(old) == len(new)
        return reply.replace(old, new)

    return run

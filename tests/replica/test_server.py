"""The server in this process, with its times shortened: what takes long is answered later."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import cbor2
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from replica_kit import Raw, hash_of, wasm

from icgpt.candid import decode, encode
from icgpt.principal import MANAGEMENT, to_text
from icgpt.replica import management_types as types
from icgpt.replica import server as module
from icgpt.replica import subnet as subnet_module
from icgpt.replica.execution import Canister
from icgpt.replica.ingress import Request
from icgpt.replica.management import canister_id
from icgpt.replica.routing import Router
from icgpt.replica.server import Server
from icgpt.replica.subnet import InUseError, Subnet

Scenario = Callable[[TestClient[web.Request, web.Application], Raw], Coroutine[Any, Any, None]]


def play(folder: Path, scenario: Scenario) -> None:
    async def run() -> None:
        server = Server()
        subnet = Subnet(folder, server.announce)
        subnet.start()
        client = TestClient(TestServer(server.serve(subnet)))
        try:
            await client.start_server()
            await scenario(client, Raw("", subnet.root_key))
        finally:
            server.close()
            await client.close()
            await asyncio.to_thread(subnet.stop)

    asyncio.run(run())


async def post(
    client: TestClient[web.Request, web.Application], raw: Raw, content: dict[str, Any], path: str
) -> tuple[int, Any]:
    body = cbor2.dumps(raw.envelope(content))
    async with client.post(f"/api/{path}", data=body) as response:
        data = await response.read()
        is_cbor = response.content_type == "application/cbor"
        return response.status, cbor2.loads(data) if is_cbor else data.decode()


async def manage(
    client: TestClient[web.Request, web.Application], raw: Raw, method: str, kind: Any, value: Any
) -> bytes:
    content = raw.call_content(MANAGEMENT, method, encode([kind], [value]))
    status, document = await post(client, raw, content, "v3/canister/aaaaa-aa/call")
    assert status == 200
    from replica_kit import verified

    tree = verified(document["certificate"], raw.root_key)
    state, reply = raw.outcome(tree, hash_of(content))
    assert state == "replied", reply
    return bytes(reply)


async def new(client: TestClient[web.Request, web.Application], raw: Raw) -> bytes:
    method = "provisional_create_canister_with_cycles"
    reply = await manage(client, raw, method, types.PROVISIONAL_CREATE, {})
    canister = bytes(decode(reply, [types.CANISTER])[0]["canister_id"])
    value = {"mode": {"install": None}, "canister_id": canister, "wasm_module": wasm(), "arg": b""}
    await manage(client, raw, "install_code", types.INSTALL, value)
    return canister


def test_a_long_call_is_accepted_and_answered_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(client: TestClient[web.Request, web.Application], raw: Raw) -> None:
        canister = await new(client, raw)
        monkeypatch.setattr(module, "SYNC_SECONDS", 0.01)
        content = raw.call_content(canister, "work", struct.pack("<Q", 1_000_000_000))
        path = f"v3/canister/{to_text(canister)}/call"
        status, _ = await post(client, raw, content, path)
        assert status == 202
        # Asked again, the answer is the same call's, once it is there.
        monkeypatch.setattr(module, "SYNC_SECONDS", 60.0)
        status, document = await post(client, raw, content, path)
        assert status == 200
        assert document["status"] == "replied"

    play(tmp_path, scenario)


def test_messages_expire_in_the_queue(tmp_path: Path) -> None:
    finished = threading.Event()
    subnet = Subnet(tmp_path, lambda _: finished.set())
    # Let in when it was young enough, and then kept waiting.
    late = Request(bytes(32), "call", b"\x04", 1, canister_id(0), "inc", b"")
    subnet.submit(late, late.canister_id)
    subnet.start()
    assert finished.wait(20)
    subnet.stop()
    entry = subnet.history.get(late.id)
    assert entry is not None
    assert entry.reject is not None
    assert (entry.reject.code, entry.reject.error_code) == (2, "IC0202")


def test_too_many_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(client: TestClient[web.Request, web.Application], raw: Raw) -> None:
        canister = await new(client, raw)
        monkeypatch.setattr(subnet_module, "MAX_PENDING", 0)
        content = raw.call_content(canister, "inc")
        status, document = await post(client, raw, content, f"v2/canister/{to_text(canister)}/call")
        assert status == 200
        assert document["error_code"] == "IC0204"

    play(tmp_path, scenario)


def test_one_process_to_a_folder(tmp_path: Path) -> None:
    subnet = Subnet(tmp_path, lambda _: None)
    with pytest.raises(InUseError):
        Subnet(tmp_path, lambda _: None)
    subnet.stop()
    Subnet(tmp_path, lambda _: None).stop()


def test_trouble_within_is_answered_and_the_network_stays_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(client: TestClient[web.Request, web.Application], raw: Raw) -> None:
        canister = await new(client, raw)
        path = f"canister/{to_text(canister)}"

        def fail(*_: object, **__: object) -> None:
            raise OSError("no space left on the device")

        with monkeypatch.context() as patch:
            patch.setattr(Canister, "execute", fail)
            patch.setattr(Canister, "reading", fail)
            content = raw.content("query", canister_id=canister, method_name="get", arg=b"")
            _, document = await post(client, raw, content, f"v2/{path}/query")
            assert document["error_code"] == "IC0521"
            call = raw.call_content(canister, "inc")
            _, document = await post(client, raw, call, f"v3/{path}/call")
            assert document["status"] == "replied"  # a certified rejection, that is
        with monkeypatch.context() as patch:
            patch.setattr(Router, "run_call", fail)
            call = raw.call_content(canister, "inc")
            _, document = await post(client, raw, call, f"v3/{path}/call")
            assert document["status"] == "replied"
        _, document = await post(client, raw, content, f"v2/{path}/query")
        assert document["reply"]["arg"] == bytes(4)

    play(tmp_path, scenario)

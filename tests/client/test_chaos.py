"""Against a proxy that loses, delays, doubles, swaps and changes what passes: right or refused.

Every call ends in the right answer or a typed error, and whatever was sent how often, the canister
does it once. A counter canister on the local network counts.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from chaos_proxy import MISHAPS, ChaosProxy
from fake_network import CANISTER, ROOT

from icgpt import deploy
from icgpt.agent import Agent, AsyncAgent, Limits
from icgpt.connect import Network
from icgpt.errors import IcgptError, NetworkError, VerificationError
from icgpt.identity import Identity
from icgpt.network import NetworkInfo

# `inc` counts, and ticks off the number that it is given; it and `get` answer the count in 4 bytes.
# `tally` answers how often each number was ticked off.
COUNTER = r"""
(module
  (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (func $add (param $at i32)
    (i32.store (local.get $at) (i32.add (i32.load (local.get $at)) (i32.const 1))))
  (func $answer (call $append (i32.const 0) (i32.const 4)) (call $reply))
  (func (export "canister_update inc")
    (call $copy (i32.const 4) (i32.const 0) (i32.const 4))
    (call $add (i32.add (i32.const 1024) (i32.mul (i32.load (i32.const 4)) (i32.const 4))))
    (call $add (i32.const 0))
    (call $answer))
  (func (export "canister_query get") (call $answer))
  (func (export "canister_query tally")
    (call $append (i32.const 1024) (i32.const 400)) (call $reply)))
"""
CALLS = 24
LIMITS = Limits(update=20.0, query=20.0, exchange=1.0, patience=6.0)


@pytest.fixture
def counter(local: NetworkInfo, agent: Agent) -> bytes:
    import wasmtime

    network = Network("local", local.url, local.root_key, local.default_effective_canister_id)
    return deploy.new_canister(agent, network, bytes(wasmtime.wat2wasm(COUNTER)))


def number(data: bytes) -> int:
    return int(struct.unpack("<I", data)[0])


def blocking(url: str, key: bytes, who: Identity, canister: bytes) -> list[int | IcgptError]:
    """What became of CALLS calls of `inc`, four at a time."""
    with Agent(url, key, who, LIMITS) as one, ThreadPoolExecutor(4) as pool:

        def inc(place: int) -> int | IcgptError:
            try:
                return number(one.update(canister, "inc", struct.pack("<I", place)))
            except IcgptError as error:
                return error

        return list(pool.map(inc, range(CALLS)))


def awaited(url: str, key: bytes, who: Identity, canister: bytes) -> list[int | IcgptError]:
    async def all_of_them() -> list[int | IcgptError]:
        async with AsyncAgent(url, key, who, LIMITS) as one:
            few = asyncio.Semaphore(4)

            async def inc(place: int) -> int | IcgptError:
                try:
                    async with few:
                        return number(await one.update(canister, "inc", struct.pack("<I", place)))
                except IcgptError as error:
                    return error

            return await asyncio.gather(*(inc(place) for place in range(CALLS)))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("way", [blocking, awaited])
@pytest.mark.parametrize("seed", range(3))
def test_a_call_is_done_once_or_not_at_all(
    way: object, seed: int, local: NetworkInfo, agent: Agent, identity: Identity, counter: bytes
) -> None:
    assert callable(way)
    with ChaosProxy(local.url, seed) as proxy:
        outcomes = way(proxy.url, local.root_key, identity, counter)
    count = number(agent.query(counter, "get", b""))
    tally = struct.unpack("<100I", agent.query(counter, "tally", b""))
    replies = [one for one in outcomes if isinstance(one, int)]
    errors = [one for one in outcomes if not isinstance(one, int)]
    assert sum(proxy.met.values()) - proxy.met["passed"] > CALLS / 4, "hardly anything went wrong"
    assert len(set(replies)) == len(replies), "two calls were given the same answer"
    assert set(replies) <= set(range(1, count + 1))
    assert sum(tally) == count
    for times, outcome in zip(tally, outcomes, strict=False):
        assert times == 1 if isinstance(outcome, int) else times <= 1
    assert all(isinstance(one, NetworkError | VerificationError) for one in errors), errors
    assert len(replies) > CALLS / 2, errors


@pytest.mark.parametrize("kind", MISHAPS)
def test_each_mishap_by_itself(
    kind: str, local: NetworkInfo, agent: Agent, identity: Identity, counter: bytes
) -> None:
    # With time to spare a slow machine asks no oftener, and meets the same mishaps.
    limits = LIMITS if kind == "silence" else replace(LIMITS, exchange=3.0)
    with (
        ChaosProxy(local.url, 7, share=0.25, kinds=[kind]) as proxy,
        Agent(proxy.url, local.root_key, identity, limits) as one,
    ):
        for place in range(1, 6):
            assert number(one.update(counter, "inc", bytes(4))) == place
            assert number(one.query(counter, "get", b"")) == place
    assert proxy.met[kind] > 0
    assert number(agent.query(counter, "get", b"")) == 5


def test_queries_are_right_or_refused(
    local: NetworkInfo, agent: Agent, identity: Identity, counter: bytes
) -> None:
    right = 0
    with (
        ChaosProxy(local.url, 11, share=0.7) as proxy,
        Agent(proxy.url, local.root_key, identity, LIMITS) as one,
    ):
        for place in range(1, 16):
            agent.update(counter, "inc", bytes(4))
            try:
                assert number(one.query(counter, "get", b"")) == place
                right += 1
            except (NetworkError, VerificationError):
                pass
    assert right > 7


# --- A server that never comes to an end


class Trickle:
    """Answers with `head`, then a byte every now and then, for ever; or reads nothing at all."""

    def __init__(self, head: bytes, piece: bytes = b"x", deaf: bool = False) -> None:
        self.head, self.piece, self.deaf = head, piece, deaf
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.accept)

    def __enter__(self) -> Trickle:
        self.thread.start()
        return self

    def __exit__(self, *how: object) -> None:
        self.over.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()

    def accept(self) -> None:
        threads = []
        while not self.over.is_set():
            try:
                client, _ = self.listener.accept()
            except OSError:
                break
            threads.append(threading.Thread(target=self.answer, args=(client,)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def answer(self, client: socket.socket) -> None:
        with client:
            try:
                if self.deaf:
                    self.over.wait()
                    return
                client.sendall(self.head)
                while not self.over.wait(0.02):
                    client.sendall(self.piece)
            except OSError:
                pass


HEAD = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "headers": lambda: Trickle(HEAD, b"A: b\r\n"),
    "one header": lambda: Trickle(HEAD + b"A: "),
    "body": lambda: Trickle(HEAD + b"Content-Length: 1000000\r\n\r\n"),
    "chunks": lambda: Trickle(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "deaf": lambda: Trickle(b"", deaf=True),
}


@pytest.fixture(params=sorted(ENDLESS))
def endless(request: pytest.FixtureRequest) -> Iterator[Trickle]:
    with ENDLESS[request.param]() as server:
        yield server


# No clock is looked at: a limit that begins anew with each byte would let these run for ever.
SHORT = Limits(update=0.6, query=0.6, exchange=0.4, patience=0.1)


def test_a_trickle_does_not_stretch_the_limit(endless: Trickle) -> None:
    with Agent(endless.url, ROOT.key, None, SHORT) as one:
        for call in (one.query, one.update):
            with pytest.raises(NetworkError):
                call(CANISTER, "work", bytes(1_900_000))


def test_a_trickle_does_not_stretch_the_limit_awaited(endless: Trickle) -> None:
    async def both() -> None:
        async with AsyncAgent(endless.url, ROOT.key, None, SHORT) as one:
            for call in (one.query, one.update):
                with pytest.raises(NetworkError):
                    await call(CANISTER, "work", bytes(1_900_000))

    asyncio.run(both())

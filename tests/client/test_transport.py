"""One HTTP exchange: what Retry-After says, what faults are told apart, what is shared."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_network import CANISTER, ROOT, FakeNetwork

from icgpt import methods, protocol, proving, replaying
from icgpt.agent import Agent, AsyncAgent
from icgpt.client import AsyncModelCanister, ModelCanister
from icgpt.errors import UsageError
from icgpt.fleet import AsyncFleet, Fleet
from icgpt.steps import Answer, Awaiting, Blocking, Fault, Pause, Request, run
from icgpt.transport import Transport, seconds_to_wait

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("9" * 400, 999_999_999.0),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        (None, None),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("1.5", None),
        ("٣", None),
        ("Fri, 99 Jan 2027 08:00:00 GMT", None),
        ("Fri, 15 Jan 99999999 08:00:00 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert seconds_to_wait(header, NOW) == seconds


def test_faults_are_told_apart() -> None:
    for url, reason in (
        ("http://127.0.0.1:1", "connection refused"),
        ("http://nowhere.invalid", "unknown host"),
    ):
        with Transport(url) as transport:
            fault = transport.perform(Request("/", None, 5.0))
        assert fault == Fault(reason, passing=False, sent=False)


def test_foreign_bytes_are_not_shown() -> None:
    assert Answer(400, b"no such thing\n").text == "no such thing"
    assert Answer(400, b"\x1b[2J").text == "4 bytes"
    assert Answer(400, bytes(2000)).text == "2,000 bytes"


def test_steps_are_ended_when_their_driver_is_interrupted() -> None:
    ended = []

    def steps() -> protocol.Steps[None]:
        try:
            yield Pause(1.0)
        finally:
            ended.append(True)

    def interrupted(step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(steps(), interrupted)
    assert ended


@pytest.mark.parametrize(
    ("blocking", "awaited"),
    [(Agent, AsyncAgent), (ModelCanister, AsyncModelCanister), (Fleet, AsyncFleet)],
)
def test_both_kinds_have_the_same_methods(blocking: type, awaited: type) -> None:
    def made(kind: type, of: type) -> dict[str, object]:
        return {
            name: getattr(kind, name) for name, one in vars(kind).items() if isinstance(one, of)
        }

    ours, theirs = made(blocking, Blocking), made(awaited, Awaiting)
    assert list(ours) == list(theirs)
    for name, method in ours.items():
        assert callable(method)
        assert method.__doc__, name
        assert inspect.signature(method) == inspect.signature(theirs[name])  # type: ignore[arg-type]
        assert inspect.iscoroutinefunction(theirs[name])


def test_every_method_of_the_canister_is_there() -> None:
    public = {
        name
        for room in (methods, proving, replaying)
        for name, one in vars(room).items()
        if inspect.isgeneratorfunction(one) and one.__module__ == room.__name__
        if not name.startswith("_") and name != "checked"
    }
    assert public == {
        name for name, one in vars(ModelCanister).items() if isinstance(one, Blocking)
    }
    signature = inspect.signature(ModelCanister.tokenize)
    assert str(signature) == "(self, text: 'str') -> 'Encoding'"


def test_an_awaited_agent_belongs_to_one_loop() -> None:
    with FakeNetwork() as network:
        one = AsyncAgent(network.url, ROOT.key)
        loop = asyncio.new_event_loop()
        try:
            assert loop.run_until_complete(one.query(CANISTER, "echo", b"1")) == b"1"
            with pytest.raises(UsageError, match="two event loops"):
                asyncio.run(one.query(CANISTER, "echo", b"1"))
            assert loop.run_until_complete(one.query(CANISTER, "echo", b"2")) == b"2"
        finally:
            loop.run_until_complete(one.close())
            loop.close()


def test_many_calls_at_once() -> None:
    """More of them than there are connections, and each gets its own answer."""

    async def ask(url: str) -> list[bytes]:
        async with AsyncAgent(url, ROOT.key) as one:
            calls = (one.update(CANISTER, "echo", b"%d" % number) for number in range(150))
            return await asyncio.gather(*calls)

    with FakeNetwork() as network:
        answers = asyncio.run(ask(network.url))
        assert answers == [b"%d" % number for number in range(150)]
        assert len(network.done) == 150


def test_threads_share_an_agent() -> None:
    with (
        FakeNetwork() as network,
        Agent(network.url, ROOT.key) as one,
        ThreadPoolExecutor(8) as pool,
    ):

        def ask(number: int) -> bytes:
            call = one.query if number % 2 else one.update
            return call(CANISTER, "echo", b"%d" % number)

        assert list(pool.map(ask, range(80))) == [b"%d" % number for number in range(80)]

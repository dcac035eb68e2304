"""A fleet: even spread, going on when a canister fails, and no work done twice."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_network import CANISTER, ROOT, FakeNetwork
from model_kit import MakeCanister, new_identity, target, tiny_config, with_model, write_model

from icgpt import candid
from icgpt.agent import Agent, AsyncAgent, Limits
from icgpt.candid import PRINCIPAL, Record
from icgpt.client import ModelCanister
from icgpt.connect import connect
from icgpt.errors import (
    CanisterError,
    IcgptError,
    MalformedError,
    NetworkError,
    NoCanisterLeftError,
    RejectedError,
    UsageError,
    VerificationError,
)
from icgpt.fleet import AsyncFleet, Fleet
from icgpt.fleet_members import not_begun, unavailable
from icgpt.interface import METHODS
from icgpt.network import NetworkInfo
from icgpt.principal import MANAGEMENT
from icgpt.project import Project
from icgpt.results import Quotas

ID = Record({"canister_id": PRINCIPAL})
LONG = {"max_new_tokens": 400, "temperature": 0.8, "seed": 5}
NOBODY = (99).to_bytes(8, "big") + b"\x01\x01"  # an id that no test's canister has


@pytest.fixture(scope="module")
def three(
    new_canister: MakeCanister, tmp_path_factory: pytest.TempPathFactory
) -> list[ModelCanister]:
    folder = write_model(tmp_path_factory.mktemp("tiny"), tiny_config(n_positions=512))
    return [with_model(new_canister(), folder) for _ in range(3)]


def fleet_of(members: list[ModelCanister], told: list[str] | None = None) -> Fleet:
    def tell(name: str, error: IcgptError) -> None:
        if told is not None:
            told.append(name)

    ids = {f"model-{number}": one.id for number, one in enumerate(members, 1)}
    return Fleet(members[0].agent, ids, tell)


def manage(model: ModelCanister, method: str) -> None:
    arg = candid.encode([ID], [{"canister_id": model.id}])
    model.agent.update(MANAGEMENT, method, arg, model.id)


@pytest.fixture
def stop(three: list[ModelCanister]) -> Iterator[Callable[[ModelCanister], None]]:
    """Stops a canister for the rest of the test."""
    yield lambda model: manage(model, "stop_canister")
    for model in three:
        manage(model, "start_canister")


# --- Spread


def test_calls_in_a_row_take_turns(three: list[ModelCanister]) -> None:
    fleet = fleet_of(three)
    done = [fleet.complete([1, 2], max_new_tokens=3, seed=i) for i in range(9)]
    assert Counter(one.canister for one in done) == {one.id: 3 for one in three}
    for i, one in enumerate(done):
        alone = three[0].complete([1, 2], max_new_tokens=3, seed=i)
        assert (one.token_ids, one.finish, one.seed) == (alone.token_ids, "length", i)


def test_calls_at_once_are_spread_evenly(three: list[ModelCanister]) -> None:
    fleet = fleet_of(three)
    with ThreadPoolExecutor(12) as threads:
        ask = lambda i: fleet.complete([1], max_new_tokens=20, seed=i)  # noqa: E731
        done = list(threads.map(ask, range(60)))
    counts = Counter(one.canister for one in done)
    assert set(counts) == {one.id for one in three}
    assert min(counts.values()) >= 15
    assert all(one.open == 0 for one in fleet.members.all)


def test_whoever_has_more_to_do_gets_less(three: list[ModelCanister]) -> None:
    fleet = fleet_of(three)
    streams = [fleet.stream([1], max_new_tokens=2) for _ in range(2)]
    assert len({one.canister for one in streams}) == 2
    free = {one.id for one in three} - {one.canister for one in streams}
    assert {fleet.complete([1], max_new_tokens=1).canister for _ in range(3)} == free
    for stream in streams:
        assert list(stream)


# --- A canister that fails


def test_a_job_goes_on_where_its_canister_was_stopped(
    three: list[ModelCanister], stop: Callable[[ModelCanister], None]
) -> None:
    told: list[str] = []
    fleet = fleet_of(three, told)
    alone = three[2].complete([1, 2, 3], **LONG, logprobs=1, echo=True)
    for one in three:
        one.call("set_per_message", 1_000_000)  # so that it takes a while
    stream = fleet.stream([1, 2, 3], **LONG, logprobs=1, echo=True)
    first = stream.canister
    read: list[int] = []
    stopped = False
    for piece in stream:
        read += piece.token_ids
        if len(read) > 3 and not stopped:  # it has written something behind the prompt
            stopped = True
            stop(next(one for one in three if one.id == first))
    assert 0 < len(told) <= 2
    assert stream.canister != first
    assert stream.completion.canister == stream.canister
    assert read == stream.completion.token_ids == alone.token_ids
    assert stream.completion.logprobs == alone.logprobs
    assert stream.completion.finish == "length"
    assert all(one.open == 0 for one in fleet.members.all)
    # What was read was not written again.
    second = next(one for one in three if one.id == stream.canister)
    begun = second.receipt(stream.job).options["begun"]
    assert begun
    assert begun == alone.token_ids[3 : 3 + len(begun)]
    manage(next(one for one in three if one.id == first), "start_canister")
    for one in three:
        one.call("set_per_message", 39_700_000_000)


def test_a_stopped_canister_is_passed_over(
    three: list[ModelCanister], stop: Callable[[ModelCanister], None]
) -> None:
    told: list[str] = []
    fleet = fleet_of(three, told)
    stop(three[1])
    done = [fleet.complete([1], max_new_tokens=1, seed=i) for i in range(6)]
    assert three[1].id not in {one.canister for one in done}
    # It was asked once, and then it was the last to be asked.
    assert told == ["model-2"]
    assert fleet.decode.__name__ == "decode"
    with pytest.raises(CanisterError, match="no tokenizer"):
        three[0].decode([1])
    for call in (lambda: fleet.logits([1]), lambda: fleet.infer([1, 2], 2, 0.0)):
        assert call()


def test_canisters_that_can_take_nothing_are_passed_over(
    three: list[ModelCanister], new_canister: MakeCanister, local: NetworkInfo, tmp_path: Path
) -> None:
    empty, low, full = new_canister(), new_canister(), new_canister()
    folder = write_model(tmp_path / "m", tiny_config(n_positions=512))
    for one in (low, full):
        with_model(one, folder)
    low.set_quotas(dataclasses.replace(low.quotas(), cycles_floor=10**18))
    full.set_quotas(Quotas(None, 1, None, 1, 1, 0))
    other = ModelCanister(connect(target(local), new_identity(tmp_path / "k.pem")), full.id)
    full.call("set_per_message", 1_000_000)
    job = other.submit([1], max_new_tokens=30_000)

    ids = {"gone": NOBODY, "empty": empty.id, "low": low.id, "full": full.id, "good": three[0].id}
    told: dict[str, IcgptError] = {}
    fleet = Fleet(other.agent, ids, told.__setitem__)
    done = fleet.complete([1], max_new_tokens=1)
    assert done.canister == three[0].id
    assert list(told) == ["gone", "empty", "low", "full"]
    assert isinstance(told["gone"], RejectedError)
    assert all(isinstance(told[one], CanisterError) for one in ("empty", "low", "full"))

    with pytest.raises(NoCanisterLeftError) as left:
        Fleet(other.agent, {name: ids[name] for name in told}).complete([1], max_new_tokens=1)
    assert [name for name, _ in left.value.tried] == list(told)
    assert left.value.exit_code == 4
    assert set(left.value.to_json()["tried"]) == set(told)
    other.cancel(job)
    with pytest.raises(UsageError):
        Fleet(other.agent, {})


def test_what_is_wrong_with_the_question_is_told_at_once(three: list[ModelCanister]) -> None:
    told: list[str] = []
    fleet = fleet_of(three, told)
    with pytest.raises(CanisterError, match="the prompt is empty"):
        fleet.complete([], max_new_tokens=1)
    with pytest.raises(UsageError):
        fleet.complete([1], nonsense=1)
    assert not told
    assert all(one.open == 0 for one in fleet.members.all)


def test_a_stream_can_be_cancelled_or_left(three: list[ModelCanister]) -> None:
    fleet = fleet_of(three)
    for one in three:
        one.call("set_per_message", 1_000_000)
    stream = fleet.stream([1], max_new_tokens=30_000)
    for _ in stream:
        break
    assert all(one.open == 0 for one in fleet.members.all)
    stream.cancel()
    assert stream.fleet.run(stream.next_piece()) is not None
    for one in three:
        one.call("set_per_message", 39_700_000_000)


def test_awaited(three: list[ModelCanister], stop: Callable[[ModelCanister], None]) -> None:
    stop(three[0])
    caller = three[0].agent

    async def work() -> None:
        ids = {str(number): one.id for number, one in enumerate(three)}
        agent = AsyncAgent(caller.url, caller.root_key, caller.identity)
        async with AsyncFleet(agent, ids) as fleet:
            asked = (fleet.complete([1], max_new_tokens=5, seed=i) for i in range(12))
            done = await asyncio.gather(*asked)
            assert {one.canister for one in done} == {three[1].id, three[2].id}
            stream = await fleet.stream([1], max_new_tokens=7, seed=2)
            read = [token async for piece in stream for token in piece.token_ids]
            assert read == three[1].complete([1], max_new_tokens=7, seed=2).token_ids
            assert (await fleet.info()).ready

    asyncio.run(work())


# --- Nothing twice


OTHER = CANISTER[:-3] + b"\x02\x01\x01"


def faulty(network: FakeNetwork, answer: tuple[int, bytes]) -> None:
    """Gives this answer in place of the first canister's, to calls and queries."""
    from icgpt.principal import to_text

    def fault(path: str, body: bytes) -> tuple[int, bytes] | None:
        return answer if to_text(CANISTER) in path and "read_state" not in path else None

    network.faults.append(fault)


def asked(network: FakeNetwork, kind: str) -> Counter[bytes]:
    contents = [one["content"] for path, one in network.requests if path.endswith(kind)]
    return Counter({bytes(one["canister_id"]): 1 for one in contents})


def pair(network: FakeNetwork) -> Fleet:
    agent = Agent(network.url, ROOT.key, limits=Limits(query=3.0, update=3.0, patience=0.2))
    return Fleet(agent, {"one": CANISTER, "two": OTHER})


def replies(method: str, arg: bytes) -> bytes:
    value = {"infer": [7], "inference": {"result": {"Ok": [7]}}, "decode_batch": "x"}[method]
    return candid.encode(METHODS[method].results, [{"Ok": value}])


def test_a_call_that_may_have_been_taken_is_not_made_again() -> None:
    for answer in ((0, b""), (504, b"late"), (500, b"what?")):
        with FakeNetwork(reply=replies) as network, pair(network) as fleet:
            faulty(network, answer)
            with pytest.raises(NetworkError) as error:
                fleet.infer([1])
            assert error.value.maybe_sent
            assert set(asked(network, "call")) == {CANISTER}


def test_a_call_that_was_handed_over_is_not_made_again() -> None:
    """Whatever becomes of the looks at how it stands."""
    for answer in ((0, b""), (503, b"busy"), (404, b"gone")):
        with FakeNetwork(reply=replies, synchronous=False) as network, pair(network) as fleet:
            network.faults.append(
                lambda path, _, answer=answer: answer if "read_state" in path else None
            )
            with pytest.raises(NetworkError) as error:
                fleet.infer([1])
            assert error.value.maybe_sent
            assert set(asked(network, "call")) == {CANISTER}


def test_a_call_that_was_not_taken_is_made_elsewhere() -> None:
    for answer in ((503, b"busy"), (429, b"busy"), (400, b"canister_not_found")):
        with FakeNetwork(reply=replies) as network, pair(network) as fleet:
            faulty(network, answer)
            assert fleet.infer([1]) == [7]
            assert set(asked(network, "call")) == {CANISTER, OTHER}


def test_a_query_is_asked_elsewhere_whatever_happened() -> None:
    for answer in ((0, b""), (504, b"late"), (503, b"busy")):
        with FakeNetwork(reply=replies) as network, pair(network) as fleet:
            faulty(network, answer)
            assert fleet.decode([1]) == "x"


def test_a_network_that_is_gone_is_told_as_that() -> None:
    with FakeNetwork() as network:
        fleet = pair(network)
    with fleet, pytest.raises(NetworkError, match="doesn't answer"):
        fleet.infer([1])


def test_which_errors_say_that_nothing_was_begun() -> None:
    sure = [
        RejectedError("x", 1),
        RejectedError("x", 2),
        RejectedError("x", 3),
        RejectedError("stopped", 5, "IC0508"),
        RejectedError("cycles", 2, "IC0207"),
        NetworkError("refused"),
    ]
    unsure = [
        RejectedError("trapped", 5, "IC0502"),
        RejectedError("mine", 4),
        CanisterError("the job ended: busy: no"),
        NetworkError("late", maybe_sent=True),
        MalformedError("garbled"),
        VerificationError("forged"),
        UsageError("wrong"),
    ]
    assert [not_begun(one) for one in sure] == [True] * len(sure)
    assert [not_begun(one) for one in unsure] == [False] * len(unsure)
    assert unavailable(unsure[3])
    assert not unavailable(unsure[5])


# --- Names


def test_a_fleet_is_remembered_by_its_name(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (tmp_path / "dfx.json").write_text("{}")
    assert project.fleet("model", "local") == {}
    for name, one in (("model", CANISTER), ("model-2", OTHER)):
        project.remember(name, "local", one)
    project.remember_fleet("model", "local", ["model", "model-2", "model-3"])
    assert project.fleet("model", "local") == {"model": CANISTER, "model-2": OTHER}
    assert project.fleet("model", "ic") == {}
    assert project.fleet("model-2", "local") == {}
    project.remember_fleet("model", "local", ["model"])
    assert project.fleet("model", "local") == {}
    for spoilt in (
        '{"model": {"local": "x"}}',
        '{"model": 3}',
        '{"model": {"local": [3, "../x"]}}',
    ):
        (tmp_path / ".icgpt" / "fleets.json").write_text(spoilt)
        assert project.fleet("model", "local") == {}

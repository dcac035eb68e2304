"""What becomes of jobs and models when messages trap, calls are lost and time passes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_canister import FaultyCanister, RefusedError, Request
from model_kit import tiny_config, write_model

from icgpt.interface import OPTION_TYPES

USER = b"\x09" * 29
ANSWER_LIMIT = 300  # seconds that a call may be silent
PER_MESSAGE = 20_000_000
LITTLE = 15_000_000  # instructions that do for small messages, but for no stretch
LONG = {"max_new_tokens": 30_000, "context": "slide", "seed": 7}


@pytest.fixture
def canister(wasm: bytes, tmp_path: Path) -> Iterator[FaultyCanister]:
    one = FaultyCanister(tmp_path / "canister", wasm)
    one.upload(write_model(tmp_path / "model", tiny_config(n_positions=1024)))
    one.set_up("int8")
    yield one
    one.close()


def options(**changes: Any) -> dict[str, Any]:
    return {**dict.fromkeys(OPTION_TYPES), "temperature": 1.0, **changes}


def complete(canister: FaultyCanister, prompt: int, **changes: Any) -> Request:
    """Begins a `complete`, which waits where it takes more than a message."""
    return canister.begin("complete", {"token_ids": [prompt]}, options(**changes))


def submit(canister: FaultyCanister, prompt: int, **changes: Any) -> bytes:
    """Submits a job; none of it is run yet."""
    request = canister.begin("submit", {"token_ids": [prompt]}, options(**changes))
    while request.waits:
        canister.deliver()
    job: bytes = canister.answer(request)
    return job


def poll(canister: FaultyCanister, job: bytes) -> dict[str, Any]:
    progress: dict[str, Any] = canister.query("poll", job, 0)[0]
    return progress


def stretch(canister: FaultyCanister) -> None:
    """Runs one stretch of the timer."""
    while not canister.waits:
        canister.pass_time(1)
        canister.wake()
    assert canister.deliver() == "run_jobs"


# --- Traps


@pytest.mark.parametrize("traps", [1, 2, 3])
def test_a_job_goes_on_after_traps_of_its_stretches(canister: FaultyCanister, traps: int) -> None:
    asked = {"max_new_tokens": 1_000, "seed": 3}
    whole = canister.answer(complete(canister, 1, **asked))["token_ids"]
    canister.update("set_per_message", PER_MESSAGE)
    job = submit(canister, 1, **asked)
    stretch(canister)
    before = poll(canister, job)["token_ids"]
    assert 0 < len(before) < 1_000
    with canister.limit(LITTLE):
        for _ in range(traps):
            stretch(canister)
    after = poll(canister, job)
    assert (after["token_ids"], after["finish"]) == (before, None)
    stretch(canister)
    # From the third trap on all is begun anew: but from the tokens that were found.
    assert len(poll(canister, job)["token_ids"]) > len(before)
    canister.settle()
    assert poll(canister, job)["token_ids"] == whole
    assert poll(canister, job)["finish"] == {"length": None}


def test_a_job_ends_after_four_traps_and_nothing_else_does(canister: FaultyCanister) -> None:
    canister.update("set_per_message", PER_MESSAGE)
    done = submit(canister, 2, max_new_tokens=3, seed=1)
    canister.settle()
    stuck = submit(canister, 1, max_new_tokens=1_000, seed=3)
    with canister.limit(LITTLE):
        for _ in range(3):
            stretch(canister)
            assert poll(canister, stuck)["finish"] is None
        stretch(canister)
    finish = poll(canister, stuck)["finish"]
    assert "stopped every attempt" in finish["failed"]
    assert poll(canister, done)["finish"] == {"length": None}
    assert not canister.has_jobs()
    again = submit(canister, 1, max_new_tokens=1_000, seed=3)
    canister.settle()
    assert len(poll(canister, again)["token_ids"]) == 1_000


def test_a_success_between_makes_traps_be_counted_anew(canister: FaultyCanister) -> None:
    canister.update("set_per_message", PER_MESSAGE)
    job = submit(canister, 1, max_new_tokens=1_000, seed=3)
    for _ in range(2):
        with canister.limit(LITTLE):
            for _ in range(3):
                stretch(canister)
        stretch(canister)
    assert poll(canister, job)["finish"] is None


def test_a_call_is_rejected_when_its_stretch_traps_and_its_job_ends(
    canister: FaultyCanister,
) -> None:
    canister.update("set_per_message", PER_MESSAGE)
    request = complete(canister, 1, **LONG)
    job = submit(canister, 2, max_new_tokens=400, seed=5)
    assert request.waits
    with canister.limit(LITTLE):
        canister.deliver()
    assert request.reject is not None
    assert request.reject.code == 5
    canister.settle()
    # What others asked for has been done, and nothing is left of the call's own job.
    assert len(poll(canister, job)["token_ids"]) == 400
    assert not canister.has_jobs()


def test_a_call_whose_first_message_traps_leaves_nothing(canister: FaultyCanister) -> None:
    canister.update("set_per_message", PER_MESSAGE)
    with canister.limit(LITTLE):
        request = complete(canister, 1, **LONG)
    assert request.reject is not None
    assert request.reject.code == 5
    canister.settle()
    assert not canister.has_jobs()


# --- Callers that vanish


def test_a_job_whose_caller_vanished_ends_five_minutes_after_it_was_last_seen(
    canister: FaultyCanister,
) -> None:
    canister.update("add_user", USER)
    quotas = canister.query("quotas")[0]
    canister.update("set_quotas", {**quotas, "user_jobs": 1})
    canister.update("set_per_message", 1_000_000)
    with canister.calling(USER):
        complete(canister, 1, **LONG)
        canister.deliver()
        last_seen = canister.now
        canister.lose_calls()
    job = submit(canister, 2, **LONG)

    def refused() -> bool:
        with canister.calling(USER):
            request = complete(canister, 3, max_new_tokens=1, seed=1)
        try:
            return not request.waits and not canister.answer(request)
        except RefusedError as error:
            return "running or waiting already" in str(error)

    while canister.now < last_seen + (ANSWER_LIMIT - 3) * 10**9:
        canister.pass_time(31)
        stretch(canister)
        assert refused() == (canister.now <= last_seen + ANSWER_LIMIT * 10**9)
    canister.pass_time(ANSWER_LIMIT - (canister.now - last_seen) / 1e9 + 1)
    stretch(canister)
    assert not refused()
    canister.lose_calls()
    # A job that nobody needs to wait for is not ended by time.
    assert poll(canister, job)["finish"] is None
    assert canister.has_jobs()
    canister.update("cancel", job)
    canister.settle()
    assert not canister.has_jobs()


def test_a_call_that_is_heard_of_is_waited_for(canister: FaultyCanister) -> None:
    canister.update("set_per_message", 1_000_000)
    request = complete(canister, 1, max_new_tokens=1_000, seed=1)
    while request.waits:
        canister.pass_time(ANSWER_LIMIT - 1)
        canister.wake()
        canister.deliver()
    assert len(canister.answer(request)["token_ids"]) == 1_000


# --- Models


def test_weights_of_another_version_that_take_too_long_to_pack_wait_for_a_set_up(
    canister: FaultyCanister,
) -> None:
    before = canister.update("logits", [1, 2, 3])[0]
    canister.change_packed_version()
    # An upgrade packs them again, unless that takes too much of its 300 B instructions.
    with canister.claiming(200_000_000_000):
        canister.upgrade()
    assert canister.query("model_info")[0]["setup"] == {"empty": None}
    for method, arguments in {
        "logits": ([1],),
        "complete": ({"token_ids": [1]}, options(seed=1)),
        "submit": ({"token_ids": [1]}, options(seed=1)),
    }.items():
        with pytest.raises(RefusedError, match="call setup_model to pack"):
            canister.update(method, *arguments)
    canister.update("setup_model")
    assert canister.query("model_info")[0]["precision"] == "int8"
    assert canister.update("logits", [1, 2, 3])[0] == before

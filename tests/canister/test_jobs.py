"""Jobs: run together and in turn, kept through upgrades, proven, limited; each answer the same."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from model_kit import (
    MakeCanister,
    ended,
    new_identity,
    target,
    tiny_config,
    upgrade,
    with_model,
    write_model,
)

from icgpt import receipts
from icgpt.agent import Agent
from icgpt.client import ModelCanister
from icgpt.connect import connect
from icgpt.errors import CanisterError, VerificationError
from icgpt.identity import anonymous
from icgpt.network import NetworkInfo


@pytest.fixture(scope="module")
def model(new_canister: MakeCanister, tmp_path_factory: pytest.TempPathFactory) -> ModelCanister:
    folder = tmp_path_factory.mktemp("tiny")
    return with_model(new_canister(), write_model(folder, tiny_config(n_positions=512)))


@pytest.fixture(scope="module")
def demo(new_canister: MakeCanister) -> ModelCanister:
    """The model in the box, for tests that leave jobs behind."""
    return with_model(new_canister(), "shakespeare-char")


@pytest.fixture
def as_other(local: NetworkInfo, tmp_path: Path) -> Callable[[ModelCanister], ModelCanister]:
    """Calls the same canister as somebody else."""

    def call(canister: ModelCanister) -> ModelCanister:
        who = new_identity(tmp_path / f"{len(list(tmp_path.iterdir()))}.pem")
        return ModelCanister(connect(target(local), who), canister.id)

    return call


# --- Together


def test_jobs_together_give_what_each_gives_alone(demo: ModelCanister) -> None:
    prompts = ["ROMEO:", "A", "To be, or not to be, that is the question:\n" * 4, "JULIET:\nO"]
    options = [
        {"max_new_tokens": 40 + 30 * i, "temperature": 0.8, "seed": i} for i in range(len(prompts))
    ]
    asked = list(zip(prompts, options, strict=True))
    jobs = [demo.submit(prompt, **rest) for prompt, rest in asked]
    together = [ended(demo, job).token_ids for job in jobs]
    alone = [demo.complete(prompt, **rest).token_ids for prompt, rest in asked]
    assert together == alone


def test_twenty_at_once_keep_pace_and_all_end(new_canister: MakeCanister, tmp_path: Path) -> None:
    model = with_model(new_canister(), write_model(tmp_path, tiny_config(n_positions=1024)))
    model.call("set_per_message", 1_000_000)  # so that they can be watched
    tokens = 1_000
    jobs = [model.submit([1, 2], max_new_tokens=tokens, seed=i) for i in range(20)]
    seen = 0
    while True:
        before = [len(model.poll(job).token_ids) for job in jobs]
        after = [model.poll(job) for job in jobs]
        if any(one.finish is not None for one in after):
            break
        # Whoever is polled later has had more time, so the fastest is taken from before.
        if min(before) > 0 and max(before) > 16:
            seen += 1
            assert min(len(one.token_ids) for one in after) >= max(before) / 2
    assert seen > 0
    done = [ended(model, job) for job in jobs]
    assert {(len(one.token_ids), one.finish) for one in done} == {(tokens, "length")}
    assert len({tuple(one.token_ids) for one in done}) == 20


def test_calls_that_wait_are_run_together(demo: ModelCanister) -> None:
    options = {"max_new_tokens": 120, "temperature": 0.8}
    with ThreadPoolExecutor(6) as threads:
        ask = lambda i: demo.complete("JULIET:", seed=i, **options)  # noqa: E731
        together = list(threads.map(ask, range(6)))
    for i, one in enumerate(together):
        assert demo.complete("JULIET:", seed=i, **options).token_ids == one.token_ids


# --- The cache


def test_going_on_from_an_answer_is_cheaper_and_changes_nothing(
    new_canister: MakeCanister, tmp_path: Path
) -> None:
    folder = write_model(tmp_path, tiny_config(n_positions=512, n_embd=32))
    first, other = (with_model(new_canister(), folder) for _ in range(2))
    prompt = [i * 7 % 11 for i in range(200)]
    answer = first.complete(prompt, max_new_tokens=50, temperature=0)
    longer = [*prompt, *answer.token_ids, 3, 1, 4]
    again = first.complete(longer, max_new_tokens=20, temperature=0)
    fresh = other.complete(longer, max_new_tokens=20, temperature=0)
    assert again.token_ids == fresh.token_ids
    assert again.instructions < fresh.instructions / 2
    # A prompt that leaves the old one half way shares no more than that.
    forked = [*prompt[:100], 5, 5]
    assert first.complete(forked, max_new_tokens=20, temperature=0).token_ids == (
        other.complete(forked, max_new_tokens=20, temperature=0).token_ids
    )


def test_a_template_is_computed_once(new_canister: MakeCanister, tmp_path: Path) -> None:
    template = {"prefix": [i * 5 % 11 for i in range(300)], "suffix": [3], "stop": []}
    config = tiny_config(n_positions=512, n_embd=32, icgpt={"template": template})
    model = with_model(new_canister(), write_model(tmp_path, config))
    first = model.complete([1], max_new_tokens=3, temperature=0)
    second = model.complete([2], max_new_tokens=3, temperature=0)
    assert second.instructions < first.instructions / 4


# --- Queries


def test_a_query_answers_like_a_call(demo: ModelCanister) -> None:
    options = {"max_new_tokens": 60, "temperature": 0.8, "seed": 5}
    asked = demo.call("complete_query", {"text": "ROMEO:"}, options_of(options))["Ok"]
    called = demo.complete("ROMEO:", **options)
    assert list(asked["token_ids"]) == called.token_ids
    assert asked["text"] == called.text
    assert asked["finish"] == {"length": None}


def test_queries_go_on_from_each_other(demo: ModelCanister) -> None:
    options = {"max_new_tokens": 500, "temperature": 0.8, "seed": 5}
    part = demo.call("complete_query", {"text": "ROMEO:"}, options_of(options))["Ok"]
    assert part["finish"] is None
    assert 100 < len(part["token_ids"]) < 500
    whole = demo.complete_query("ROMEO:", **options)
    assert (whole.finish, len(whole.token_ids)) == ("length", 500)
    called = demo.complete("ROMEO:", **options)
    assert (whole.token_ids, whole.text) == (called.token_ids, called.text)


def test_a_query_needs_a_seed_where_it_would_draw_one(model: ModelCanister) -> None:
    refused = model.call("complete_query", {"token_ids": [1]}, options_of({}))
    assert "seed" in refused["Err"]
    greedy = options_of({"temperature": 0.0, "max_new_tokens": 3})
    assert "Ok" in model.call("complete_query", {"token_ids": [1]}, greedy)
    for prompt, options in (([], {}), ([99], {}), ([1], {"begun": [99]}), ([1], {"top_k": 0})):
        asked = options_of({"temperature": 0.0, **options})
        assert "Err" in model.call("complete_query", {"token_ids": prompt}, asked)


def test_begun_answers_go_on(model: ModelCanister) -> None:
    options = {"max_new_tokens": 30, "temperature": 1.0, "seed": 9}
    whole = model.complete([1, 2], **options).token_ids
    for begun in (1, 17, 29):
        assert model.complete([1, 2], begun=whole[:begun], **options).token_ids == whole
    for begun in (30, 31):
        done = model.complete([1, 2], begun=(whole * 2)[:begun], **options)
        assert (done.token_ids[:30], done.finish) == (whole, "length")


def options_of(options: dict[str, object]) -> dict[str, object]:
    from icgpt.interface import OPTION_TYPES

    return {**dict.fromkeys(OPTION_TYPES), **options}


# --- Ends


def test_an_upgrade_in_the_middle_changes_nothing(
    new_canister: MakeCanister, demo: ModelCanister, wasm: bytes, tmp_path: Path
) -> None:
    model = with_model(new_canister(), "shakespeare-char")
    model.call("set_per_message", 50_000_000)  # so that it takes many
    options = {"max_new_tokens": 250, "temperature": 0.8, "seed": 4}
    done = model.submit("A", max_new_tokens=5, temperature=0.0)
    before = ended(model, done)
    jobs = [model.submit(prompt, **options) for prompt in ("ROMEO:", "JULIET:")]
    while not model.poll(jobs[0]).token_ids:
        pass
    upgrade(model, wasm, tmp_path)
    assert model.poll(jobs[0]).finish is None
    assert model.poll(done) == before
    assert model.receipt(done).token_ids == before.token_ids
    for prompt, job in zip(("ROMEO:", "JULIET:"), jobs, strict=True):
        assert ended(model, job).token_ids == demo.complete(prompt, **options).token_ids


@pytest.mark.parametrize("begun", [0, 100])
def test_log_probabilities_are_the_same_after_upgrades(
    new_canister: MakeCanister, demo: ModelCanister, wasm: bytes, tmp_path: Path, begun: int
) -> None:
    model = with_model(new_canister(), "shakespeare-char")
    model.call("set_per_message", 50_000_000)
    options: dict[str, Any] = {"temperature": 0.8, "seed": 4, "context": "slide"}
    first = demo.complete("ROMEO:", max_new_tokens=100, **options).token_ids
    options |= {"max_new_tokens": 400, "logprobs": 3, "begun": first[:begun]}
    whole = demo.complete("ROMEO:", **options)
    assert whole.logprobs is not None
    assert len(whole.logprobs) == 400 - begun
    job = model.submit("ROMEO:", **options)
    for level, least in ((1, begun + 10), (2, begun + 90)):
        while len(before := model.poll(job).token_ids) < least:
            pass
        upgrade(model, wasm, tmp_path, level)
        progress = model.poll(job)
        # Nothing that was there is made anew: neither tokens nor their log-probabilities.
        assert progress.token_ids[: len(before)] == before
        assert progress.logprobs == whole.logprobs[: len(progress.token_ids) - begun]
    done = ended(model, job)
    assert (done.token_ids, done.logprobs) == (whole.token_ids, whole.logprobs)
    upgrade(model, wasm, tmp_path, 3)
    assert model.poll(job) == done


def test_another_model_ends_what_was_asked_of_the_first(
    new_canister: MakeCanister, tmp_path: Path
) -> None:
    model = with_model(new_canister(), "shakespeare-char")
    model.call("set_per_message", 20_000_000)  # so that it finds time for the upload
    job = model.submit("A", max_new_tokens=30_000)
    with_model(model, write_model(tmp_path, tiny_config()))
    progress = ended(model, job)
    assert progress.finish == "failed"
    assert progress.failure is not None
    assert "another model" in progress.failure
    assert len(model.complete([1], max_new_tokens=2).token_ids) == 2


def test_a_cancelled_job_ends_at_once_and_others_go_on(demo: ModelCanister) -> None:
    gone, stays = (demo.submit("A", max_new_tokens=n, seed=1) for n in (30_000, 200))
    demo.cancel(gone)
    assert demo.poll(gone).finish == "cancelled"
    demo.cancel(gone)
    assert ended(demo, stays).finish == "length"


def test_managers_see_and_end_the_jobs_of_all(
    new_canister: MakeCanister,
    local: NetworkInfo,
    tmp_path: Path,
    as_other: Callable[[ModelCanister], ModelCanister],
) -> None:
    """A manager is who made the canister; a user sees their own, and the anonymous caller none."""
    folder = write_model(tmp_path / "model", tiny_config(n_positions=1024))
    model = with_model(new_canister(), folder)
    model.set_public(True)
    model.call("set_per_message", 1_000_000)  # so that they can be watched
    user, stranger = as_other(model), as_other(model)
    anyone = ModelCanister(connect(target(local), anonymous()), model.id)
    ids = [one.submit([1, 2, 3], max_new_tokens=900, seed=1) for one in (user, anyone, model)]
    assert [one.job for one in model.jobs()] == ids
    (mine,) = user.jobs()
    assert (mine.job, mine.owner) == (ids[0], user.agent.identity.principal)
    assert (mine.submitted, mine.prompt_tokens, mine.max_tokens) == (True, 3, 900)
    assert stranger.jobs() == anyone.jobs() == []
    with pytest.raises(CanisterError, match="another caller"):
        stranger.cancel(ids[0])
    for job in ids:
        model.cancel(job)
    assert model.jobs() == []
    done = user.poll(ids[0])
    assert done.finish == "cancelled"
    assert mine.tokens <= len(done.token_ids) < 900


def test_the_oldest_are_forgotten(model: ModelCanister) -> None:
    first = model.submit([1], max_new_tokens=1, temperature=0)
    ended(model, first)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: model.complete([1], max_new_tokens=1, seed=i), range(256)))
    with pytest.raises(CanisterError, match="no such job"):
        model.poll(first)


def test_jobs_are_their_owners(
    demo: ModelCanister, as_other: Callable[[ModelCanister], ModelCanister]
) -> None:
    job = demo.submit("A", max_new_tokens=3)
    ended(demo, job)
    other = as_other(demo)
    for ask in (other.poll, other.receipt):
        with pytest.raises(CanisterError, match="no such job"):
            ask(job)


# --- Proof


def test_a_finished_job_is_proven_by_a_query(demo: ModelCanister) -> None:
    done = demo.complete("ROMEO:", max_new_tokens=12, temperature=0.8, seed=3)
    assert done.job is not None
    receipt = demo.receipt(done.job)
    assert receipt.prompt == demo.tokenize("ROMEO:").token_ids
    assert (receipt.token_ids, receipt.seed) == (done.token_ids, 3)
    assert (receipt.finish, receipt.options["temperature"]) == ("length", 0.8)
    assert abs(receipt.time_ns / 1e9 - time.time()) < 300


def test_nothing_else_passes_for_a_proof(demo: ModelCanister, model: ModelCanister) -> None:
    done = demo.complete("ROMEO:", max_new_tokens=12, seed=3)
    assert done.job is not None
    proof, key = demo.proof(done.job), demo.agent.root_key
    receipts.verify(proof, done.job, demo.id, key)
    for part, data in proof.items():
        for at in (0, len(data) // 2, len(data) - 1):
            changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            with pytest.raises(VerificationError):
                receipts.verify({**proof, part: changed}, done.job, demo.id, key)
    for job, canister in ((bytes(32), demo.id), (done.job, model.id)):
        with pytest.raises(VerificationError):
            receipts.verify(proof, job, canister, key)


def test_a_running_job_has_no_proof_yet(demo: ModelCanister) -> None:
    job = demo.submit("A", max_new_tokens=30_000)
    with pytest.raises(CanisterError, match="not ended"):
        demo.proof(job)
    demo.cancel(job)
    assert demo.receipt(job).finish == "cancelled"


# --- Quotas


def test_a_user_has_so_many_tokens_a_day(
    new_canister: MakeCanister,
    tmp_path: Path,
    as_other: Callable[[ModelCanister], ModelCanister],
) -> None:
    model = with_model(new_canister(), write_model(tmp_path / "model", tiny_config(n_positions=64)))
    quotas = model.quotas()
    model.set_quotas(dataclasses.replace(quotas, user_tokens_per_day=50))
    user = as_other(model)
    model.add_user(user.agent.identity.principal)
    with pytest.raises(CanisterError, match="51 tokens, but 50 are left"):
        user.complete([1], max_new_tokens=50)
    assert user.usage().tokens_left == 50
    user.complete([1, 2], max_new_tokens=10)
    assert (user.usage().tokens_today, user.usage().tokens_left) == (12, 38)
    user.score([1], [2, 3])
    assert user.usage().tokens_left == 35
    # A job gives back what it did not need.
    user.complete([1] * 20, max_new_tokens=15, begun=[1] * 15)
    assert user.usage().tokens_left == 0
    for refused in (user.complete, user.submit, user.logits):
        with pytest.raises(CanisterError, match="0 are left of today's quota"):
            refused([1])
    assert len(model.complete([1], max_new_tokens=50).token_ids) == 50
    assert model.usage().role == "manager"


def test_public_callers_share_a_quota(
    new_canister: MakeCanister,
    tmp_path: Path,
    as_other: Callable[[ModelCanister], ModelCanister],
) -> None:
    model = with_model(new_canister(), write_model(tmp_path / "model", tiny_config()))
    model.set_public(True)
    model.set_quotas(dataclasses.replace(model.quotas(), public_tokens_per_day=10))
    one, two = as_other(model), as_other(model)
    one.complete([1], max_new_tokens=5)
    assert (two.usage().role, two.usage().tokens_left) == ("public", 4)
    with pytest.raises(CanisterError, match="of public use"):
        two.complete([1], max_new_tokens=5)


def test_quotas_outlive_an_upgrade(new_canister: MakeCanister, wasm: bytes, tmp_path: Path) -> None:
    model = with_model(new_canister(), write_model(tmp_path / "model", tiny_config()))
    mine = dataclasses.replace(model.quotas(), queue=7, user_jobs=3, public_tokens_per_day=None)
    model.set_quotas(mine)
    upgrade(model, wasm, tmp_path)
    assert model.quotas() == mine


def test_jobs_at_once_and_the_queue_have_bounds(
    new_canister: MakeCanister, tmp_path: Path, as_other: Callable[[ModelCanister], ModelCanister]
) -> None:
    model = with_model(new_canister(), write_model(tmp_path / "model", tiny_config()))
    model.call("set_per_message", 1_000_000)  # so that it finds time for us
    long = {"max_new_tokens": 32_000, "context": "slide"}
    user = as_other(model)
    model.add_user(user.agent.identity.principal)
    model.set_quotas(dataclasses.replace(model.quotas(), user_jobs=2, queue=3))
    mine = [user.submit([1], **long) for _ in range(2)]
    for ask in (user.submit, user.complete):
        with pytest.raises(CanisterError, match="2 jobs are running or waiting already"):
            ask([1], max_new_tokens=1)
    user.cancel(mine[0])
    assert len(user.complete([1], max_new_tokens=1).token_ids) == 1
    jobs = []
    with pytest.raises(CanisterError, match="busy: 3 jobs are waiting"):  # noqa: PT012
        for _ in range(64):
            jobs.append(model.submit([1], **long))
    # Who has none running gets a place from who has many.
    user.cancel(mine[1])
    model.set_quotas(dataclasses.replace(model.quotas(), queue=10))
    last = user.submit([1], max_new_tokens=10)
    assert ended(user, last).finish == "length"
    for job in jobs:
        model.cancel(job)


def test_below_its_floor_of_cycles_the_canister_takes_no_new_work(
    new_canister: MakeCanister, tmp_path: Path
) -> None:
    model = with_model(new_canister(), write_model(tmp_path, tiny_config()))
    quotas = model.quotas()
    model.set_quotas(dataclasses.replace(quotas, cycles_floor=2**63))
    for refused in (model.complete, model.submit, model.logits):
        with pytest.raises(CanisterError, match="top it up"):
            refused([1])
    model.set_quotas(quotas)
    assert len(model.complete([1], max_new_tokens=2).token_ids) == 2


def test_bad_quotas_are_refused(model: ModelCanister) -> None:
    quotas = model.quotas()
    for bad in ("user_jobs", "public_jobs", "queue"):
        with pytest.raises(CanisterError, match="at least 1"):
            model.set_quotas(dataclasses.replace(quotas, **{bad: 0}))
    assert model.quotas() == quotas


def test_only_managers_set_quotas(
    model: ModelCanister, as_other: Callable[[ModelCanister], ModelCanister], agent: Agent
) -> None:
    from icgpt.errors import RejectedError

    with pytest.raises((CanisterError, RejectedError), match="not a manager"):
        as_other(model).set_quotas(model.quotas())
    assert model.usage().role == "manager"

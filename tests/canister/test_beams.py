"""Several answers in the canister: over many messages, through upgrades, in receipts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_kit import MakeCanister, ended, upgrade

from icgpt.client import ModelCanister
from icgpt.errors import CanisterError
from icgpt.results import Completion
from icgpt.upload import upload

BEAMS = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 40}
GROUPS = {**BEAMS, "num_beam_groups": 2, "diversity_penalty": 0.5, "length_penalty": 0.0}
DRAWN = {"num_return_sequences": 3, "max_new_tokens": 40, "seed": 3}
ALL = (BEAMS, GROUPS, DRAWN)
PROMPT = "ROMEO:\n"


@pytest.fixture(scope="module")
def model(new_canister: MakeCanister) -> ModelCanister:
    from icgpt.checkpoint import open_checkpoint

    model = new_canister()
    upload(model, open_checkpoint("shakespeare-char"), precision="int8")
    return model


def same(one: Completion, other: Completion) -> None:
    assert one.sequences is not None
    assert one.sequences == other.sequences
    assert (one.token_ids, one.text, one.finish) == (other.token_ids, other.text, other.finish)
    first = one.sequences[0]
    assert (one.token_ids, one.text, one.finish) == (first.token_ids, first.text, first.finish)


@pytest.mark.parametrize("options", ALL)
def test_in_one_call_in_a_job_and_in_a_query(model: ModelCanister, options: dict[str, Any]) -> None:
    whole = model.complete(PROMPT, **options)
    assert whole.sequences is not None
    assert len(whole.sequences) == options["num_return_sequences"]
    assert len({one.text for one in whole.sequences}) > 1
    scores = [one.score for one in whole.sequences]
    if "num_beams" in options:
        assert scores == sorted(scores, key=lambda score: -(score or 0))
    else:
        assert scores == [None] * 3
    stream = model.stream(PROMPT, **options)
    pieces = list(stream)
    same(whole, stream.completion)
    assert len(pieces) == 1 or "num_beams" not in options
    short = {**options, "max_new_tokens": 4}
    same(model.complete_query(PROMPT, **short), model.complete(PROMPT, **short))
    with pytest.raises(CanisterError, match="several answers together"):
        model.complete_query(PROMPT, **{**options, "max_new_tokens": 4000})


@pytest.mark.parametrize("options", ALL)
def test_receipts_vouch_for_all_answers(model: ModelCanister, options: dict[str, Any]) -> None:
    job = model.submit(PROMPT, **options)
    done = ended(model, job)
    receipt = model.receipt(job)
    assert receipt.sequences is not None
    assert done.sequences is not None
    told = [(one.token_ids, one.finish, one.score) for one in done.sequences]
    found = [(one["token_ids"], one["finish"], one["score"]) for one in receipt.sequences]
    assert found == told
    for name, value in options.items():
        assert receipt.options[name] == value


def test_they_go_on_over_many_messages_and_through_upgrades(
    new_canister: MakeCanister, wasm: bytes, tmp_path: Path
) -> None:
    from icgpt.checkpoint import open_checkpoint

    model = new_canister()
    upload(model, open_checkpoint("shakespeare-char"), precision="int8")
    longer = {"max_new_tokens": 150, "context": "stop"}
    all_options = [*({**options, **longer} for options in ALL), {**DRAWN, "logprobs": 1}]
    whole = [model.complete(PROMPT, **options) for options in all_options]
    model.call("set_per_message", 50_000_000)  # a few tokens of each in a message
    jobs = [model.submit(PROMPT, **options) for options in all_options]
    while model.poll(jobs[2]).token_ids[20:] == []:
        pass
    assert all(model.poll(job).finish is None for job in jobs[:3])
    assert not model.poll(jobs[0]).token_ids
    taken = [model.poll(job).instructions for job in jobs]
    upgrade(model, wasm, tmp_path)
    for job, one, before in zip(jobs, whole, taken, strict=True):
        done = ended(model, job)
        same(one, done)
        assert done.instructions > before
        assert model.receipt(job).token_ids == one.token_ids


def test_echo_and_stop_strings(model: ModelCanister) -> None:
    options = {**BEAMS, "stop": ["\n"], "max_new_tokens": 60}
    done = model.complete(PROMPT, **options, echo=True)
    plain = model.complete(PROMPT, **options)
    assert done.sequences is not None
    assert plain.sequences is not None
    for one, other in zip(done.sequences, plain.sequences, strict=True):
        assert one.text == PROMPT + (other.text or "")
        assert "\n" not in (other.text or "")
        assert one.finish == other.finish


def test_refusals(model: ModelCanister) -> None:
    for options, part in (
        ({"num_beams": 33}, "num_beams 33"),
        ({"num_beams": 4, "num_beam_groups": 3, "diversity_penalty": 1.0}, "multiple"),
        ({"num_return_sequences": 2, "temperature": 0.0}, "always gives the same"),
        ({"num_beams": 2, "begun": [1]}, "begun"),
        ({"num_beams": 2, "logprobs": 0}, "logprobs"),
        ({"max_time": -1.0}, "max_time"),
        ({"logit_bias": {0: 1000.0}}, "bias"),
        ({"max_length": 3}, "max_length 3"),
    ):
        for ask in (model.complete, model.submit, model.complete_query):
            with pytest.raises(CanisterError, match=part):
                ask(PROMPT, **{"seed": 1, **options})


def test_time_that_is_over_ends_a_job(model: ModelCanister) -> None:
    """Time stands still in a message, so it takes more than one."""
    whole = model.complete(PROMPT, max_new_tokens=200, seed=1)
    model.call("set_per_message", 20_000_000)
    done = ended(model, model.submit(PROMPT, max_new_tokens=200, seed=1, max_time=1e-9))
    assert done.finish == "length"
    assert 1 <= len(done.token_ids) < 200
    assert whole.token_ids[: len(done.token_ids)] == done.token_ids
    model.call("set_per_message", 39_700_000_000)

"""Generation in the canister: sampling, sliding, jobs across messages, ends and limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from model_kit import (
    MakeCanister,
    tiny_config,
    tiny_tensors,
    with_model,
    write_model,
)

from icgpt.client import ModelCanister
from icgpt.errors import CanisterError


@pytest.fixture(scope="module")
def model(new_canister: MakeCanister, tmp_path_factory: pytest.TempPathFactory) -> ModelCanister:
    folder = tmp_path_factory.mktemp("tiny")
    return with_model(new_canister(), write_model(folder, tiny_config(n_positions=64)))


def test_a_seed_repeats_and_seeds_differ(model: ModelCanister) -> None:
    options = {"max_new_tokens": 40, "temperature": 1.0}
    first = model.complete([1, 2], seed=7, **options)
    assert model.complete([1, 2], seed=7, **options).token_ids == first.token_ids
    assert model.complete([1, 2], seed=8, **options).token_ids != first.token_ids
    assert first.seed == 7


def test_a_drawn_seed_is_told_and_repeats(model: ModelCanister) -> None:
    options = {"max_new_tokens": 40, "temperature": 1.0}
    first, second = model.complete([1], **options), model.complete([1], **options)
    assert first.seed != second.seed
    again = model.complete([1], seed=second.seed, **options)
    assert again.token_ids == second.token_ids


def test_every_token_draws_anew(model: ModelCanister) -> None:
    # The seed canister used one random draw for a whole call; at a high temperature that shows.
    done = model.complete([1], max_new_tokens=60, temperature=50.0, seed=1)
    assert len(set(done.token_ids)) > 6


def test_top_k_of_one_is_greedy(model: ModelCanister) -> None:
    greedy = model.complete([3], max_new_tokens=30, temperature=0)
    assert model.complete([3], max_new_tokens=30, temperature=1.5, top_k=1, seed=5).token_ids == (
        greedy.token_ids
    )


def test_sampling_follows_the_logits(model: ModelCanister) -> None:
    import numpy as np

    logits = np.array(model.logits([4, 5]))
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    draws = [
        model.complete([4, 5], max_new_tokens=1, temperature=1.0, seed=seed).token_ids[0]
        for seed in range(400)
    ]
    seen = np.bincount(draws, minlength=len(logits)) / len(draws)
    # Five standard deviations of a share among 400 draws.
    assert np.abs(seen - expected).max() < 5 * np.sqrt(0.25 / len(draws))


def test_scores_are_log_probabilities(model: ModelCanister) -> None:
    import numpy as np

    continuation = [4, 0, 9]
    scores = model.score([1, 2], continuation)
    for i, token in enumerate(continuation):
        logits = np.array(model.logits([1, 2, *continuation[:i]]), dtype=float)
        log_sum = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
        assert scores[i] == pytest.approx(logits[token] - log_sum, abs=1e-4)


def test_a_stream_gives_what_one_call_gives(shakespeare: ModelCanister) -> None:
    options = {"max_new_tokens": 500, "temperature": 0.8, "seed": 3}
    whole = shakespeare.complete("ROMEO:", **options)
    job = shakespeare.stream("ROMEO:", **options)
    pieces = list(job)
    # 500 tokens are longer than the context: the model slides past it, in several messages.
    assert len(pieces) > 1
    assert job.completion.token_ids == whole.token_ids
    assert job.completion.text == whole.text == "".join(piece.text or "" for piece in pieces)
    assert (len(whole.token_ids), whole.finish) == (500, "length")
    info = shakespeare.info()
    assert info.context == "slide"
    assert info.architecture is not None
    assert info.architecture.n_ctx < 500


def test_work_is_the_same_in_one_message_or_many(
    new_canister: MakeCanister, shakespeare: ModelCanister
) -> None:
    """Every method that computes is cut into messages of the least size, and answers the same."""
    model = new_canister()
    model.call("set_per_message", 1_000_000)
    with_model(model, "shakespeare-char")
    assert model.info().source_sha256 == shakespeare.info().source_sha256
    options = {"max_new_tokens": 500, "temperature": 0.8, "seed": 11}
    whole, cut = (one.complete("ROMEO:", **options) for one in (shakespeare, model))
    assert (cut.token_ids, cut.text) == (whole.token_ids, whole.text)
    assert len(cut.text or "") == 500
    # A token costs more than a message's share, so that the other makes a message for each.
    assert cut.instructions > whole.instructions
    ids = shakespeare.tokenize("To be, or not to be").token_ids
    assert model.logits(ids) == shakespeare.logits(ids)
    assert model.score(ids[:4], ids[4:]) == shakespeare.score(ids[:4], ids[4:])
    assert model.infer(ids, 100, 0) == shakespeare.infer(ids, 100, 0)
    assert model.generate("To be", 100, 0) == shakespeare.generate("To be", 100, 0)


def test_the_size_of_a_message_has_bounds(canister: ModelCanister) -> None:
    for instructions in (0, 999_999, 39_700_000_001):
        assert "Err" in canister.call("set_per_message", instructions)


def test_generate_gives_a_hundred_tokens(shakespeare: ModelCanister) -> None:
    assert len(shakespeare.generate("JULIET:", 100, 0.7)) == 100


def test_end_tokens_stop_and_are_kept(new_canister: MakeCanister, tmp_path: Path) -> None:
    config = tiny_config()
    probe = with_model(new_canister(), write_model(tmp_path / "a", config))
    greedy = probe.complete([1], max_new_tokens=12, temperature=0).token_ids
    end = greedy[3]
    first = greedy.index(end)
    folder = write_model(tmp_path / "b", tiny_config(eos_token_id=end))
    done = with_model(new_canister(), folder).complete([1], max_new_tokens=12, temperature=0)
    assert (done.token_ids, done.finish) == (greedy[: first + 1], "stop")


def test_a_template_is_put_round_the_prompt(new_canister: MakeCanister, tmp_path: Path) -> None:
    plain = with_model(new_canister(), write_model(tmp_path / "a", tiny_config()))
    template = {"prefix": [1, 2], "suffix": [3], "stop": []}
    config = tiny_config(icgpt={"template": template})
    model = with_model(new_canister(), write_model(tmp_path / "b", config))
    with_template = model.complete([5], max_new_tokens=5, temperature=0)
    assert with_template.prompt_tokens == 4
    wrapped = plain.complete([1, 2, 5, 3], max_new_tokens=5, temperature=0)
    assert with_template.token_ids == wrapped.token_ids
    bare = model.complete([5], max_new_tokens=5, temperature=0, template=False)
    assert bare.prompt_tokens == 1
    assert model.infer([5], 5, 0) == bare.token_ids


def test_the_instruct_vocabulary_brings_its_template(
    new_canister: MakeCanister, tmp_path: Path
) -> None:
    config = tiny_config(vocab_size=50260)
    model = with_model(new_canister(), write_model(tmp_path, config, tiny_tensors(config)))
    template = model.info().template
    assert template is not None
    assert (template.prefix, template.suffix) == ([50258, 198], [628, 50259, 198])
    assert 50257 in template.stop


def test_the_context_ends_the_answer(model: ModelCanister) -> None:
    done = model.complete([1] * 60, max_new_tokens=100, temperature=0)
    assert (len(done.token_ids), done.finish) == (5, "context")


def test_a_sliding_context_takes_a_longer_prompt(model: ModelCanister) -> None:
    done = model.complete([1] * 200, max_new_tokens=3, temperature=0, context="slide")
    assert (len(done.token_ids), done.finish) == (3, "length")


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ([], {}, "empty"),
        ([11], {}, "11"),
        ([1] * 65, {}, "64"),
        ([1], {"max_new_tokens": 0}, "token"),
        ([1], {"max_new_tokens": 32_769}, "at most 32768"),
        ([1], {"temperature": float("nan")}, "temperature"),
        ([1], {"temperature": -1.0}, "temperature"),
        ([1], {"temperature": float("inf")}, "temperature"),
        ([1], {"top_k": 0}, "top_k"),
        ([1], {"context": "wrap"}, "slide"),
        ("text", {}, "tokenizer"),
        ("", {}, "empty"),
    ],
)
def test_bad_requests_are_refused(
    model: ModelCanister, prompt: str | list[int], options: dict[str, object], words: str
) -> None:
    for ask in (model.complete, model.submit):
        with pytest.raises(CanisterError, match=words):
            ask(prompt, **options)
    assert len(model.complete([1], max_new_tokens=2, temperature=0).token_ids) == 2


def test_inference_refuses_what_complete_refuses(model: ModelCanister) -> None:
    for ids, count, temperature in (([], 1, 0.2), ([99], 1, 0.2), ([1], 0, 0.2), ([1], 1, -1.0)):
        with pytest.raises(CanisterError):
            model.infer(ids, count, temperature)
    with pytest.raises(CanisterError):
        model.logits([])
    with pytest.raises(CanisterError):
        model.logits([11])
    with pytest.raises(CanisterError):
        model.score([1], [11])


def test_a_job_can_be_cancelled(shakespeare: ModelCanister) -> None:
    job = shakespeare.submit("ROMEO:", max_new_tokens=20_000, temperature=0.8, seed=1)
    shakespeare.cancel(job)
    while (progress := shakespeare.poll(job)).finish is None:
        pass
    assert progress.finish == "cancelled"
    assert len(progress.token_ids) < 20_000


def test_unknown_jobs_are_refused(shakespeare: ModelCanister) -> None:
    for job in (b"", b"\x00" * 32):
        with pytest.raises(CanisterError, match="no such job"):
            shakespeare.poll(job)
        with pytest.raises(CanisterError, match="no such job"):
            shakespeare.cancel(job)


def test_json_of_the_config_is_kept(model: ModelCanister) -> None:
    info = json.loads(json.dumps(model.info().to_json()))
    assert info["architecture"]["n_ctx"] == 64

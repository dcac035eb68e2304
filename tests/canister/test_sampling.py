"""Options of a generation in the canister: filters, bans, stop strings, log-probabilities, echo."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_kit import MakeCanister, tiny_config, tiny_tensors, with_model, write_model
from tokenizers import Tokenizer

from icgpt.client import ModelCanister
from icgpt.errors import CanisterError, UsageError
from icgpt.results import Completion

GOLDEN = Path(__file__).parents[1] / "golden" / "tokenizer"
SAID = "The café — 🙂🙃 isn't there; naïve 你好。\n\nENDE END"


@pytest.fixture(scope="module")
def model(new_canister: MakeCanister, tmp_path_factory: pytest.TempPathFactory) -> ModelCanister:
    folder = tmp_path_factory.mktemp("tiny")
    config = tiny_config(n_positions=64, eos_token_id=4)
    return with_model(new_canister(), write_model(folder, config))


@pytest.fixture(scope="module")
def parrot(new_canister: MakeCanister, tmp_path_factory: pytest.TempPathFactory) -> ModelCanister:
    """A model that always says SAID: its positions alone decide the next token."""
    folder = tmp_path_factory.mktemp("parrot")
    tokenizer = Tokenizer.from_file(str(GOLDEN / "bpe.json"))
    said = tokenizer.encode(SAID).ids
    config = tiny_config(n_embd=64, n_positions=64, vocab_size=tokenizer.get_vocab_size())
    config["icgpt"] = {"template": {"prefix": [5], "suffix": [], "stop": []}}
    tensors = {name: np.zeros_like(one) for name, one in tiny_tensors(config).items()}
    for name in ("h.0.ln_1.weight", "h.0.ln_2.weight", "ln_f.weight"):
        tensors[name][:] = 1
    random = np.random.default_rng(0)
    tensors["wte.weight"] = random.standard_normal(tensors["wte.weight"].shape).astype("f4")
    for at, token in enumerate(said):
        tensors["wpe.weight"][at] = 10 * tensors["wte.weight"][token]
    write_model(folder, config, tensors)
    shutil.copy(GOLDEN / "bpe.json", folder / "tokenizer.json")
    return with_model(new_canister(), folder)


def say(parrot: ModelCanister, **options: Any) -> Completion:
    """What the parrot says to one token, in one call and as a stream, which must agree."""
    count = len(parrot.tokenize(SAID).token_ids)
    options = {"max_new_tokens": count, "temperature": 0, "template": False, **options}
    done = parrot.complete("x", **options)
    stream = parrot.stream("x", **options)
    seen = ""
    for piece in stream:
        seen += piece.text or ""
        assert (done.text or "").startswith(seen), "nothing is shown that is taken back"
    last = stream.completion
    assert (last.text, last.token_ids, last.finish) == (done.text, done.token_ids, done.finish)
    assert last.logprobs == done.logprobs
    return done


def test_a_stop_string_ends_the_text_before_it(parrot: ModelCanister) -> None:
    ids = parrot.tokenize(SAID).token_ids
    assert say(parrot).text == SAID
    for stop in ("isn't", "é", "🙃", "🙂🙃", "ïve 你", "END", "E END", "\n\n", "T", "好。\n"):
        done = say(parrot, stop=[stop])
        assert done.text == SAID[: SAID.index(stop)]
        assert done.finish == "stop"
        # The tokens are those that it takes until the stop string is there, and no more.
        assert done.token_ids == ids[: len(done.token_ids)]
        assert stop in parrot.decode(done.token_ids)
        assert stop not in parrot.decode(done.token_ids[:-1])


def test_the_first_of_several_stop_strings_counts(parrot: ModelCanister) -> None:
    done = say(parrot, stop=["there", "isn't", "never said"])
    assert done.text == SAID[: SAID.index("isn't")]
    # What begins like a stop string and isn't one comes with the end.
    assert say(parrot, stop=["END!", "ENDEN"]).text == SAID
    assert say(parrot, stop="there").text == SAID[: SAID.index("there")]
    assert say(parrot, stop=[]).text == SAID


def test_a_stop_string_in_the_prompt_changes_nothing(parrot: ModelCanister) -> None:
    done = say(parrot, stop=["x"], echo=True)
    assert done.text == "x" + SAID


def test_echo_puts_the_prompt_first(parrot: ModelCanister) -> None:
    prompt = parrot.tokenize("x").token_ids
    plain, echoed = say(parrot), say(parrot, echo=True, logprobs=0)
    assert echoed.text == "x" + SAID
    assert echoed.token_ids == prompt + plain.token_ids
    assert len(echoed.logprobs or []) == len(plain.token_ids)
    assert echoed.prompt_tokens == plain.prompt_tokens
    # The template is no part of it.
    with_template = parrot.complete("x", max_new_tokens=1, temperature=0, echo=True)
    assert with_template.prompt_tokens == 2
    assert with_template.token_ids[:-1] == prompt


def test_a_job_can_be_read_from_any_token(parrot: ModelCanister) -> None:
    job = parrot.submit(
        "x", max_new_tokens=40, temperature=0, template=False, echo=True, logprobs=1, stop=["there"]
    )
    while (whole := parrot.poll(job)).finish is None:
        pass
    assert whole.logprobs is not None
    for start in range(len(whole.token_ids) + 2):
        part = parrot.poll(job, start)
        assert part.token_ids == whole.token_ids[start:]
        assert part.logprobs == whole.logprobs[max(start - 1, 0) :]
        assert (whole.text or "").endswith(part.text or "")


def test_log_probabilities_are_the_scores(model: ModelCanister) -> None:
    for options in (
        {"temperature": 0},
        {"temperature": 0.3, "top_k": 2, "repetition_penalty": 3.0, "no_repeat_ngram_size": 2},
    ):
        done = model.complete([1, 2], max_new_tokens=12, seed=5, logprobs=4, **options)
        assert done.logprobs is not None
        assert [one.chosen.token_id for one in done.logprobs] == done.token_ids
        scores = model.score([1, 2], done.token_ids)
        assert [one.chosen.logprob for one in done.logprobs] == pytest.approx(scores, abs=1e-5)
        for at, one in enumerate(done.logprobs):
            logits = np.array(model.logits([1, 2, *done.token_ids[:at]]), dtype=float)
            best = [int(i) for i in np.argsort(-logits, kind="stable")[:4]]
            assert [top.token_id for top in one.top] == best
            total = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
            assert [top.logprob for top in one.top] == pytest.approx(logits[best] - total, abs=1e-5)
    assert model.complete([1], max_new_tokens=2, temperature=0).logprobs is None
    only = model.complete([1], max_new_tokens=1, temperature=0, logprobs=0).logprobs
    assert only is not None
    assert only[0].top == []


def probabilities(model: ModelCanister) -> np.ndarray[Any, Any]:
    logits = np.array(model.logits([4, 5]), dtype=float)
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def nucleus(p: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    order = np.argsort(-p)
    return order[: int((np.cumsum(p[order]) < 0.7).sum()) + 1]


def typical(p: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    order = np.argsort(np.abs(-np.log(p) + (p * np.log(p)).sum()))
    return order[: int((np.cumsum(p[order]) < 0.6).sum()) + 1]


def three(p: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.argsort(-p)[:3]


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"top_p": 0.7}, nucleus), ({"typical_p": 0.6}, typical), ({"top_k": 3}, three)],
)
def test_filters_keep_and_renormalise(
    model: ModelCanister,
    options: dict[str, Any],
    kept: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]],
) -> None:
    p = probabilities(model)
    expected = np.zeros_like(p)
    expected[kept(p)] = p[kept(p)]
    expected /= expected.sum()
    assert 1 < (expected > 0).sum() < len(p)
    draws = [
        model.complete([4, 5], max_new_tokens=1, seed=seed, **options).token_ids[0]
        for seed in range(300)
    ]
    seen = np.bincount(draws, minlength=len(p)) / len(draws)
    assert not seen[expected == 0].any()
    # Five standard deviations of a share among 300 draws.
    assert np.abs(seen - expected).max() < 5 * np.sqrt(0.25 / len(draws))


def runs(ids: list[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)]


def test_no_run_of_tokens_occurs_twice(model: ModelCanister) -> None:
    prompt = [1, 2, 3, 1, 2]
    plain = prompt + model.complete(prompt, max_new_tokens=40, temperature=0).token_ids
    assert len(set(runs(plain, 2))) < len(runs(plain, 2))
    options = {"max_new_tokens": 40, "temperature": 0, "no_repeat_ngram_size": 2}
    all_ids = prompt + model.complete(prompt, min_new_tokens=40, **options).token_ids
    assert len(set(runs(all_ids[3:], 2))) == len(runs(all_ids[3:], 2)) == 41
    ids = model.complete(
        plain, max_new_tokens=15, temperature=0, encoder_no_repeat_ngram_size=2
    ).token_ids
    assert not set(runs([plain[-1], *ids], 2)) & set(runs(plain, 2))


def test_when_all_is_banned_the_answer_ends_and_says_so(model: ModelCanister) -> None:
    done = model.complete([1], max_new_tokens=40, temperature=1.0, no_repeat_ngram_size=1, seed=2)
    if done.finish == "stop":
        done = model.complete(
            [1], max_new_tokens=40, min_new_tokens=40, no_repeat_ngram_size=1, seed=2
        )
    assert done.finish == "failed"
    assert "no token is left" in (done.failure or "")
    assert sorted(done.token_ids) == [0, 2, 3, 5, 6, 7, 8, 9, 10]


def test_a_penalty_changes_what_repeats(model: ModelCanister) -> None:
    options = {"max_new_tokens": 30, "min_new_tokens": 30, "temperature": 0}
    plain = model.complete([1], **options).token_ids
    penalised = model.complete([1], repetition_penalty=2.0, **options).token_ids
    rewarded = model.complete([1], repetition_penalty=0.5, **options).token_ids
    assert len(set(rewarded)) <= len(set(plain)) <= len(set(penalised))
    assert len(set(rewarded)) < len(set(penalised))
    assert model.complete([1], repetition_penalty=1.0, **options).token_ids == plain


def test_no_end_token_before_min_new_tokens(model: ModelCanister) -> None:
    ends = [
        len(model.complete([1], max_new_tokens=40, min_new_tokens=12, seed=seed).token_ids)
        for seed in range(20)
    ]
    assert min(ends) >= 13
    assert min(ends) < 40
    free = [len(model.complete([1], max_new_tokens=40, seed=s).token_ids) for s in range(20)]
    assert min(free) < 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *(({name: value}, name) for name in ("top_p", "typical_p") for value in (0.0, -0.5, 1.5)),
        ({"top_p": float("nan")}, "top_p"),
        ({"typical_p": float("inf")}, "typical_p"),
        *(({"repetition_penalty": v}, "penalty") for v in (0.0, -1.0, float("nan"), float("inf"))),
        ({"no_repeat_ngram_size": 0}, "no_repeat_ngram_size"),
        ({"encoder_no_repeat_ngram_size": 0}, "encoder_no_repeat_ngram_size"),
        ({"min_new_tokens": 6}, "min_new_tokens 6"),
        ({"logprobs": 21}, "at most 20"),
        ({"stop": [""]}, "empty"),
        ({"stop": ["a"] * 17}, "at most 16"),
        ({"stop": ["a" * 257]}, "at most 256"),
    ],
)
def test_options_that_make_no_sense(
    parrot: ModelCanister, options: dict[str, Any], words: str
) -> None:
    for ask in (parrot.complete, parrot.submit):
        with pytest.raises(CanisterError, match=words):
            ask("x", max_new_tokens=5, **options)


def test_stop_strings_need_a_tokenizer(model: ModelCanister) -> None:
    with pytest.raises(CanisterError, match="no tokenizer"):
        model.complete([1], stop=["x"])
    assert len(model.complete([1], stop=[], max_new_tokens=2, temperature=0).token_ids) == 2


def test_options_of_another_kind(model: ModelCanister) -> None:
    for options in ({"beams": 2}, {"stop": [1]}, {"stop": 7}, {"logprobs": -1}, {"top_p": "x"}):
        with pytest.raises(UsageError):
            model.complete([1], **options)

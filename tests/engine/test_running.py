"""Answers made in this process: those of a canister, many at once, and never a trap."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_kit import GOLDEN, MakeCanister

from icgpt.checkpoint import open_checkpoint
from icgpt.client import ModelCanister
from icgpt.engine import Engine, EngineError, EngineMemoryError, Event, pack
from icgpt.errors import CheckpointError, IcgptError, UsageError
from icgpt.upload import upload

PRECISIONS = ("f32", "int8", "int16")
MODELS = sorted(
    path.parent.name
    for path in GOLDEN.glob("*/model.safetensors")
    if path.with_name("expected.json").exists()
)


def fnv(values: bytes) -> str:
    """FNV-1a, as tests/golden/bits.json has it."""
    value = 0xCBF29CE484222325
    for byte in values:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def load(name: str, precision: str | None = None) -> Engine:
    folder = name if name == "shakespeare-char" else str(GOLDEN / name)
    return Engine.load(open_checkpoint(folder), precision)


def finish(engine: Engine) -> dict[int, tuple[list[int], Event]]:
    """Runs all answers to their ends: the tokens of each request's first, and its last event."""
    return {number: found for (number, index), found in finish_all(engine).items() if index == 0}


def finish_all(engine: Engine) -> dict[tuple[int, int], tuple[list[int], Event]]:
    """The same of all answers, by request and index."""
    tokens: dict[tuple[int, int], list[int]] = {}
    last: dict[tuple[int, int], Event] = {}
    while engine.running:
        for event in engine.step(3):
            key = (event.id, event.index)
            assert key not in last or last[key].finish is None
            tokens.setdefault(key, []).extend(event.token_ids)
            last[key] = event
    return {key: (tokens[key], last[key]) for key in tokens}


def alone(engine: Engine, prompt: list[int], **options: Any) -> tuple[list[int], Event]:
    submitted = engine.submit(prompt, **options)
    return finish(engine)[submitted.id]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The model in the box."""
    with load("shakespeare-char", "int8") as engine:
        yield engine


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_bits_of_the_native_engine(precision: str) -> None:
    """Every prompt position of every golden model, by the kernels that are made for the clock."""
    import numpy as np

    bits = json.loads((GOLDEN / "bits.json").read_text())[precision]
    for name in bits:
        prompt = json.loads((GOLDEN / name / "expected.json").read_text())["prompt"]
        with load(name, precision) as engine:
            logits = [engine.logits(prompt[: length + 1]) for length in range(len(prompt))]
            assert fnv(np.asarray(logits, "<f4").tobytes()) == bits[name], name


@pytest.mark.parametrize("name", MODELS)
def test_greedy_ids_of_transformers(name: str) -> None:
    expected = json.loads((GOLDEN / name / "expected.json").read_text())
    with load(name, "f32") as engine:
        tokens, last = alone(
            engine, expected["prompt"], max_new_tokens=500, temperature=0, context="stop"
        )
        assert (tokens, last.finish) == (expected["greedy"], "context")
        slid = len(expected["slide"])
        tokens, last = alone(
            engine, expected["prompt"], max_new_tokens=slid, temperature=0, context="slide"
        )
        assert (tokens, last.finish) == (expected["slide"], "length")


OPTIONS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0.7, "seed": 1},
    {"temperature": 1.3, "seed": 2**64 - 1, "top_k": 9},
    {"seed": 3, "top_p": 0.8, "repetition_penalty": 1.2},
    {"seed": 4, "typical_p": 0.9, "no_repeat_ngram_size": 3, "min_new_tokens": 9},
    {"seed": 5, "encoder_no_repeat_ngram_size": 2, "logprobs": 3},
    {"seed": 6, "stop": ["th", "\n\n"], "max_new_tokens": 300},
    {"seed": 7, "begun": [20, 21, 22], "max_new_tokens": 30},
    {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.5, "early_stopping": True},
    {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 0.8, "early_stopping": "never"},
    {"seed": 8, "num_return_sequences": 3, "top_k": 20, "max_length": 80, "min_length": 60},
    {"seed": 9, "num_beams": 3, "temperature": 1.5, "num_return_sequences": 2},
    {"seed": 10, "logit_bias": {0: -100, 1: 2.5}, "remove_invalid_values": True},
]


def test_the_tokens_of_a_canister(new_canister: MakeCanister) -> None:
    """Every precision, with many sorts of options, all of them at once."""
    rng = random.Random(8)
    model = new_canister()
    checkpoint = open_checkpoint("shakespeare-char")
    for precision in PRECISIONS:
        upload(model, checkpoint, precision=precision)
        with Engine.load(checkpoint, precision) as engine:
            prompts = [[rng.randrange(65) for _ in range(1 + 5 * i)] for i in range(len(OPTIONS))]
            asked = [
                engine.submit(prompt, **{"max_new_tokens": 40, **options})
                for prompt, options in zip(prompts, OPTIONS, strict=True)
            ]
            found = finish_all(engine)
            for submitted, prompt, options in zip(asked, prompts, OPTIONS, strict=True):
                wanted = answer(model, prompt, {**options, "seed": submitted.seed})
                tokens, last = found[submitted.id, 0]
                begun = options.get("begun", [])
                assert (begun + tokens, last.finish) == (wanted.token_ids, wanted.finish), options
                assert submitted.prompt_tokens == wanted.prompt_tokens
                count = options.get("num_return_sequences", 1)
                assert submitted.sequences == count
                for index, one in enumerate(wanted.sequences or ()):
                    tokens, last = found[submitted.id, index]
                    assert (tokens, last.finish) == (one.token_ids, one.finish), options
                    assert last.score == one.score
                several = count > 1 or "num_beams" in options
                assert len(wanted.sequences or ()) == (count if several else 0)
            ids = prompts[-1]
            assert engine.logits(ids) == model.logits(ids)
            assert engine.score(ids[:3], ids[3:]) == model.score(ids[:3], ids[3:])


def answer(model: ModelCanister, prompt: list[int], options: dict[str, Any]) -> Any:
    return model.complete(prompt, **{"max_new_tokens": 40, **options})


def test_log_probabilities(engine: Engine) -> None:
    submitted = engine.submit([1, 2, 3], max_new_tokens=6, seed=1, logprobs=2)
    tokens: list[int] = []
    places = []
    while engine.running:
        for event in engine.step():
            assert event.id == submitted.id
            assert len(event.logprobs) == len(event.token_ids)
            tokens += event.token_ids
            places += event.logprobs
    assert [place.chosen.token_id for place in places] == tokens
    assert all(len(place.top) == 2 for place in places)
    assert all(place.top[0].logprob >= place.top[1].logprob for place in places)
    scores = engine.score([1, 2, 3], tokens)
    for place, score in zip(places, scores, strict=True):
        assert math.isclose(place.chosen.logprob, score, abs_tol=1e-6)


def test_several_answers_are_written_side_by_side(engine: Engine) -> None:
    submitted = engine.submit([1, 2, 3], max_new_tokens=8, seed=5, num_return_sequences=3)
    seen: dict[int, list[int]] = {}
    while engine.running:
        for event in engine.step():
            assert len(event.token_ids) == 1
            seen.setdefault(event.index, []).extend(event.token_ids)
    assert submitted.sequences == len(seen) == 3
    assert seen[0] == alone(engine, [1, 2, 3], max_new_tokens=8, seed=5)[0]
    assert len({tuple(tokens) for tokens in seen.values()}) > 1


def test_answers_of_a_search_come_when_it_is_over(engine: Engine) -> None:
    engine.submit([1, 2, 3], max_new_tokens=8, num_beams=4, num_return_sequences=2)
    events: list[Event] = []
    while engine.running:
        assert not events
        events = engine.step()
    assert [event.index for event in events] == [0, 1]
    best, second = (event.score or 0 for event in events)
    assert second <= best < 0
    score = sum(engine.score([1, 2, 3], events[0].token_ids)) / 8
    assert math.isclose(best, score, abs_tol=1e-4)


@pytest.mark.parametrize("options", [{"num_return_sequences": 2}, {"num_beams": 2}, {}])
def test_time_that_is_over_ends_an_answer_with_its_next_token(
    engine: Engine, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("icgpt.engine.running.time.monotonic", lambda: now)
    slow = engine.submit([1, 2, 3], max_new_tokens=60, seed=1, max_time=2.5, **options)
    other = engine.submit([1, 2, 3], max_new_tokens=20, seed=1, **options)
    engine.step(5)
    now += 2.4
    engine.step(2)
    now += 0.2
    found = finish_all(engine)
    tokens, last = found[slow.id, 0]
    whole = alone(engine, [1, 2, 3], max_new_tokens=8, seed=1, **options)[0]
    assert last.finish == "length"
    assert tokens == whole[len(whole) - len(tokens) :]
    assert len(found[other.id, 0][0]) > len(tokens)


def test_answers_share_passes_and_change_nothing(engine: Engine) -> None:
    requests = [([i + 1, 2 * i], {"max_new_tokens": 5 + i, "seed": i}) for i in range(20)]
    want = [alone(engine, prompt, **options)[0] for prompt, options in requests]
    asked = [engine.submit(prompt, **options).id for prompt, options in requests[:9]]
    steps = 0
    while engine.running and steps < 3:
        early = {event.id: event.token_ids for event in engine.step()}
        assert set(early) <= set(asked)
        steps += 1
    begun = {number: want[i][:3] for i, number in enumerate(asked)}
    asked += [engine.submit(prompt, **options).id for prompt, options in requests[9:]]
    found = finish(engine)
    for i, number in enumerate(asked):
        assert begun.get(number, []) + found[number][0] == want[i]


def test_cancel(engine: Engine) -> None:
    first = engine.submit([1], max_new_tokens=50, seed=1)
    second = engine.submit([2], max_new_tokens=5, seed=1)
    engine.step()
    assert engine.cancel(first.id)
    assert not engine.cancel(first.id)
    assert engine.running == 1
    assert set(finish(engine)) == {second.id}
    assert not engine.cancel(second.id)
    assert not engine.cancel(0)
    assert not engine.cancel(2**70)


def test_a_packed_file_takes_the_weights_place(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(GOLDEN / "odd-heads"))
    prompt = json.loads((GOLDEN / "odd-heads" / "expected.json").read_text())["prompt"]
    for precision in PRECISIONS:
        done = pack(checkpoint, tmp_path / precision, precision)
        with (
            Engine.load(checkpoint, precision) as plain,
            Engine.load(checkpoint, packed=done.path) as packed,
        ):
            assert packed.logits(prompt) == plain.logits(prompt)


def test_a_damaged_packed_file_is_refused(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(GOLDEN / "odd-heads"))
    path = tmp_path / "packed"
    whole = bytearray(pack(checkpoint, path, "int8").path.read_bytes())
    rng = random.Random(1)
    for damaged in (b"", bytes(7), whole[:100], whole[:-1], whole + b"\0", bytes(len(whole))):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            Engine.load(checkpoint, packed=path)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            with Engine.load(checkpoint, packed=path) as engine:
                alone(engine, [1], max_new_tokens=3, seed=1)
        except CheckpointError:
            pass  # what still loads must run to its end
    with pytest.raises(CheckpointError):
        Engine.load(open_checkpoint(str(GOLDEN / "two-blocks")), packed=path)


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ([], {}),
        ([65], {}),
        ([2**32 - 1], {}),
        ([0] * 70_000, {}),
        ([1], {"max_new_tokens": 0}),
        ([1], {"max_new_tokens": 10**6}),
        ([1], {"temperature": -1.0}),
        ([1], {"temperature": float("nan")}),
        ([1], {"temperature": float("inf")}),
        ([1], {"top_k": 0}),
        ([1], {"top_p": 1.5}),
        ([1], {"repetition_penalty": 0.0}),
        ([1], {"no_repeat_ngram_size": 0}),
        ([1], {"min_new_tokens": 9, "max_new_tokens": 8}),
        ([1], {"logprobs": 1000}),
        ([1], {"context": "roll"}),
        ([1], {"stop": [""]}),
        ([1], {"stop": ["x"] * 17}),
        ([1], {"begun": [99]}),
        ([1] * 257, {"context": "stop"}),
        ([-1], {}),
        ([2**32], {}),
        (["1"], {}),
        ([1], {"no_such": 1}),
        ([1], {"top_k": "many"}),
        ([1], {"top_k": -1}),
        ([1], {"seed": 2**64}),
        ([1], {"seed": -1}),
        ([1], {"seed": "x"}),
        ([1], {"num_beams": 0}),
        ([1], {"num_beams": 33}),
        ([1], {"num_beams": 2, "num_return_sequences": 3}),
        ([1], {"num_beams": 4, "num_beam_groups": 3, "diversity_penalty": 1.0}),
        ([1], {"num_beams": 4, "num_beam_groups": 2}),
        ([1], {"num_beams": 2, "logprobs": 1}),
        ([1], {"num_beams": 2, "begun": [1]}),
        ([1], {"num_beams": 2, "length_penalty": float("nan")}),
        ([1], {"num_beams": 2, "early_stopping": "maybe"}),
        ([1], {"early_stopping": 7}),
        ([1], {"num_return_sequences": 2, "temperature": 0}),
        ([1], {"num_return_sequences": 33}),
        ([1], {"num_return_sequences": 0}),
        ([1, 2], {"max_length": 2}),
        ([1], {"max_time": 0.0}),
        ([1], {"max_time": "soon"}),
        ([1], {"logit_bias": {1: 101.0}}),
        ([1], {"logit_bias": {65: 1.0}}),
        ([1], {"logit_bias": {"x": 1.0}}),
        ([1], {"logit_bias": 3}),
    ],
)
def test_a_request_that_makes_no_sense(
    engine: Engine, prompt: list[int], options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        engine.submit(prompt, **options)
    assert engine.running == 0
    assert alone(engine, [1], max_new_tokens=3, temperature=0)[0]


def test_ids_that_make_no_sense(engine: Engine) -> None:
    for ids in ([], [65], [1] * 257, [-1], [2**32], ["1"]):
        with pytest.raises(UsageError):
            engine.logits(ids)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            engine.score(ids, [1])  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        engine.score([1], [])
    with pytest.raises(UsageError):
        engine.step(0)


def test_stop_strings_need_a_tokenizer() -> None:
    with load("two-blocks") as engine, pytest.raises(UsageError, match="tokenizer"):
        engine.submit([1], stop=["x"])


def test_too_many_at_once_are_refused() -> None:
    """Keys and values that memory has no room for: refused before it runs out, all else goes on."""

    def fill(engine: Engine) -> None:
        for _ in range(20_000):
            engine.submit([1], max_new_tokens=256, seed=1)

    with load("shakespeare-char", "f32") as engine:
        with pytest.raises(EngineMemoryError):
            fill(engine)
        submitted = engine.running
        assert submitted > 100
        for number in range(2, submitted + 1):
            assert engine.cancel(number)
        assert len(finish(engine)[1][0]) == 256


def test_an_engine_that_failed_says_so(engine: Engine) -> None:
    other = load("two-blocks")
    other.close()
    other.close()
    with pytest.raises(EngineError):
        other.logits([1])
    with pytest.raises(EngineError):
        other.submit([1])


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(GOLDEN / "two-blocks"))
    with pytest.raises(UsageError, match="int4"):
        Engine.load(checkpoint, "int4")
    with pytest.raises(IcgptError):
        Engine.load(checkpoint, packed=tmp_path / "nothing")

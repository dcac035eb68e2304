"""What OpenAI's own client gets: texts, streams, log-probabilities, usage, errors."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from instruct import instruct_tokenizer
from model_kit import tiny_config, tiny_tensors, write_model
from serve_kit import SECONDS, Served, served

from icgpt.checkpoint import open_checkpoint
from icgpt.engine import Engine
from icgpt.serve.local import LocalBackend
from icgpt.texts import load_tokenizer
from icgpt.tokens import EOT, PREFIX_TOKENS, SUFFIX_TOKENS

openai = pytest.importorskip("openai", reason="the openai client is missing")

MODEL = "shakespeare-char"


@pytest.fixture(scope="module")
def client(shakespeare_service: Served) -> Iterator[Any]:
    url = f"{shakespeare_service.url}/v1"
    with openai.OpenAI(base_url=url, api_key="secret", max_retries=0, timeout=SECONDS) as made:
        yield made


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.load(open_checkpoint(MODEL), "int8") as loaded:
        yield loaded


def written(engine: Engine, prompt: str, **options: Any) -> str:
    """What the engine gives for a prompt, all by itself."""
    tokenizer = load_tokenizer(open_checkpoint(MODEL))
    engine.submit(tokenizer.encode(prompt).ids, **options)
    tokens: list[int] = []
    while engine.running:
        for event in engine.step():
            tokens += event.token_ids
    return str(tokenizer.decode(tokens))


def test_models(client: Any) -> None:
    assert [one.id for one in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    for unknown in ("gpt-4", "ft:gpt-4:mine", "mine/gpt-4"):
        with pytest.raises(openai.NotFoundError) as refused:
            client.models.retrieve(unknown)
        assert refused.value.code == "model_not_found"


def test_completion(client: Any, engine: Engine) -> None:
    done = client.completions.create(model=MODEL, prompt="ROMEO:", max_tokens=30, seed=7)
    assert done.choices[0].text == written(engine, "ROMEO:", max_new_tokens=30, seed=7)
    assert (done.choices[0].finish_reason, done.object) == ("length", "text_completion")
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (6, 30)
    assert done.usage.total_tokens == 36


def test_several_prompts_and_answers(client: Any, engine: Engine) -> None:
    done = client.completions.create(
        model=MODEL, prompt=["ROMEO:", [30, 27]], n=2, max_tokens=9, seed=3
    )
    wanted = [
        written(engine, prompt, max_new_tokens=9, seed=seed)
        for prompt in ("ROMEO:", "RO")
        for seed in (3, 4)
    ]
    assert [one.text for one in done.choices] == wanted
    assert [one.index for one in done.choices] == [0, 1, 2, 3]
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (8, 36)


def test_a_stream_has_the_same_text(client: Any) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "prompt": "JULIET:",
        "n": 2,
        "max_tokens": 40,
        "seed": 1,
        "stop": ["\n\n"],
    }
    whole = client.completions.create(**asked)
    texts, reasons = ["", ""], [None, None]
    usage = None
    options = {"include_usage": True}
    for chunk in client.completions.create(**asked, stream=True, stream_options=options):
        usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason
    assert texts == [one.text for one in whole.choices]
    assert reasons == [one.finish_reason for one in whole.choices]
    assert usage == whole.usage


def test_log_probabilities_and_echo(client: Any, engine: Engine) -> None:
    done = client.completions.create(
        model=MODEL, prompt="ROMEO:", max_tokens=5, seed=1, logprobs=3, echo=True
    )
    told = done.choices[0].logprobs
    assert "".join(told.tokens) == done.choices[0].text
    assert done.choices[0].text.startswith("ROMEO:")
    assert told.text_offset == list(range(11))
    tokenizer = load_tokenizer(open_checkpoint(MODEL))
    ids = tokenizer.encode(done.choices[0].text).ids
    assert told.token_logprobs[0] is None
    for value, wanted in zip(told.token_logprobs[1:], engine.score(ids[:1], ids[1:]), strict=True):
        assert math.isclose(value, wanted, abs_tol=1e-5)
    assert all(len(place) >= 3 for place in told.top_logprobs[6:])
    scored = client.completions.create(
        model=MODEL, prompt="ROMEO:", max_tokens=0, logprobs=0, echo=True
    )
    assert scored.choices[0].logprobs.token_logprobs == told.token_logprobs[:6]


def test_the_best_of_several(client: Any) -> None:
    every = client.completions.create(
        model=MODEL, prompt="ROMEO:", max_tokens=9, seed=5, n=4, logprobs=0
    )
    best = client.completions.create(model=MODEL, prompt="ROMEO:", max_tokens=9, seed=5, best_of=4)
    likeliest = max(every.choices, key=lambda one: sum(one.logprobs.token_logprobs))
    assert [one.text for one in best.choices] == [likeliest.text]
    assert best.usage.completion_tokens == 36


def test_tokens_that_are_not_wanted(client: Any) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": "ROMEO:", "max_tokens": 9, "seed": 5}
    (usual,) = client.completions.create(**asked, temperature=0, logprobs=0).choices
    first = usual.logprobs.tokens[0]
    ids = client.post("/../tokenize", body={"text": first}, cast_to=object)["token_ids"]
    bias = {str(ids[0]): -100}
    (other,) = client.completions.create(**asked, temperature=0, logit_bias=bias).choices
    assert not other.text.startswith(first)


def test_a_plain_model_converses_as_in_a_play(client: Any, engine: Engine) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
    ]
    done = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=60, seed=2, logprobs=True, top_logprobs=2
    )
    play = "System:\nBe kind.\n\nUser:\nHello.\n\nAssistant:\n"
    wanted = written(engine, play, max_new_tokens=60, seed=2, stop=["\n\n"]).partition("\n\n")[0]
    (choice,) = done.choices
    assert choice.message.content == wanted
    assert choice.message.role == "assistant"
    assert "".join(one.token for one in choice.logprobs.content).startswith(wanted)
    assert all(len(one.top_logprobs) == 2 for one in choice.logprobs.content)
    text = ""
    for chunk in client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=60, seed=2, stream=True
    ):
        text += chunk.choices[0].delta.content or ""
    assert text == wanted
    assert chunk.choices[0].finish_reason == choice.finish_reason


def test_a_model_with_a_template(tmp_path: Path) -> None:
    config = tiny_config(vocab_size=50260, n_positions=128)
    write_model(tmp_path / "gpt2", config, tiny_tensors(config))
    tokenizer = instruct_tokenizer()
    tokenizer.save(str(tmp_path / "gpt2" / "tokenizer.json"))
    checkpoint = open_checkpoint(str(tmp_path / "gpt2"))

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    first = [*PREFIX_TOKENS, *ids("Be kind.\n\nHi"), *SUFFIX_TOKENS]
    whole = [*first, *ids("Hello"), EOT, *PREFIX_TOKENS, *ids("Why?"), *SUFFIX_TOKENS]
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
    ]
    with Engine.load(checkpoint, "f32") as engine:
        engine.submit(whole, max_new_tokens=8, temperature=0, template=False)
        wanted: list[int] = []
        while engine.running:
            for event in engine.step():
                wanted += event.token_ids
    with (
        served(LocalBackend(checkpoint, "f32", name="instruct")) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="-", max_retries=0) as client,
    ):
        done = client.chat.completions.create(
            model="instruct", messages=messages, max_tokens=8, temperature=0
        )
        assert done.choices[0].message.content == tokenizer.decode(wanted)
        assert done.usage.prompt_tokens == len(whole)
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="instruct", prompt="word " * 200)
        assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": -1},
        {"temperature": "hot"},
        {"max_tokens": 0.5},
        {"n": 0},
        {"top_p": 2},
        {"stop": [""]},
        {"prompt": []},
        {"prompt": [-1]},
        {"prompt": [65]},
        {"prompt": None},
        {"prompt": "Grüße"},
        {"frequency_penalty": 1},
        {"suffix": "end"},
        {"best_of": 2, "stream": True},
        {"logprobs": 100},
        {"logit_bias": {"x": 1}},
    ],
)
def test_what_makes_no_sense(client: Any, asked: dict[str, Any]) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.post("/completions", body={"prompt": "ROMEO:", **asked}, cast_to=object)
    assert refused.value.body["message"]
    assert refused.value.body["type"] == "invalid_request_error"


def test_without_a_key(shakespeare_service: Served) -> None:
    url = f"{shakespeare_service.url}/v1"
    with openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        assert "key" in refused.value.body["message"]


def test_a_stream_that_is_cut_frees_its_place(client: Any, shakespeare_service: Served) -> None:
    desk = shakespeare_service.desk
    stream = client.completions.create(model=MODEL, prompt="A", max_tokens=1000, stream=True)
    next(iter(stream))
    assert desk.running == 1
    stream.close()
    cut = time.monotonic()
    while desk.running and time.monotonic() - cut < SECONDS:
        time.sleep(0.01)
    assert desk.running == 0

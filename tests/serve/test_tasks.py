"""Tasks: what a judge makes of a model's probabilities, forms of prompts, models of their own."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from model_kit import GOLDEN
from serve_kit import SECONDS, served

from icgpt.checkpoint import open_checkpoint
from icgpt.checkpoint.labels import Label, labels_of
from icgpt.checkpoint.vocabularies import characters_form
from icgpt.errors import UsageError
from icgpt.serve.judging import Classifier, Expectation, Verdict
from icgpt.serve.local import LocalBackend
from icgpt.serve.prompts import PLAIN, Form
from icgpt.serve.tasks import Tasks


class FakeDesk:
    """A desk whose model knows what is likely."""

    max_context = 40

    def __init__(self, logprobs: dict[tuple[str, str], list[float]]) -> None:
        self._logprobs = logprobs
        self.asked: list[str] = []
        self.backend = self
        self.facts = self
        self.fingerprint = "1"

    async def token_ids(self, text: str) -> list[int]:
        return [ord(one) for one in text]

    async def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
        text = "".join(map(chr, prompt))
        self.asked.append(text)
        word = "".join(chr(one) for one in continuation)
        return self._logprobs[text, word]


def judged(judge: Any, text: str) -> Verdict:
    found: Verdict = asyncio.run(judge.judge(text))
    return found


def test_a_word_is_measured_against_what_is_usual() -> None:
    form = Form.read("<{text}>")
    usual = {("<>", " spam"): [-1.0], ("<>", " ham"): [-3.0, -5.0]}
    said = {("<buy>", " spam"): [-1.5], ("<buy>", " ham"): [-6.0, -7.0]}
    desk: Any = FakeDesk({**usual, **said})
    judge = Expectation(desk, form)
    verdict = judged(judge, "buy")
    # spam lost 0.5, ham 2.5 a token.
    assert verdict.spam == pytest.approx(1 / (1 + math.exp(-2.0)))
    assert (verdict.label, verdict.tokens) == ("spam", 5)
    assert verdict.confidence == verdict.spam
    judged(judge, "buy")
    assert desk.asked.count("<>") == 2, "what is usual is asked once"
    nothing = judged(judge, "")
    assert (nothing.label, nothing.confidence) == ("not spam", 0.5)


def test_a_classifier_says_it_itself() -> None:
    desk: Any = FakeDesk({("x", "\0"): [-2.0], ("x", "\1"): [-1.0], ("x", "\2"): [-4.0]})
    labels = [Label("Not_Spam", 0.0), Label("SPAM", -0.5), Label("other-spam", 0.0)]
    verdict = judged(Classifier(desk, labels), "x")
    parts = [math.exp(-2.0), math.exp(-1.5), math.exp(-4.0)]
    assert verdict.spam == pytest.approx(sum(parts[1:]) / sum(parts))
    long = judged(
        Classifier(FakeDesk({("x" * 40, n): [-1.0] for n in "\0\1"}), labels[:2]), "x" * 99
    )
    assert long.tokens == 40
    unnamed = [Label("LABEL_0", 0.0), Label("LABEL_1", 0.0)]
    assert judged(Classifier(desk, unnamed), "x").label == "spam"
    for names in (["a", "b", "c"], ["ham", "not spam", "no-spam"], ["spam", "spam"]):
        with pytest.raises(UsageError, match="means spam"):
            Classifier(desk, [Label(name, 0.0) for name in names])


def test_forms_and_what_is_cut() -> None:
    desk: Any = FakeDesk({})

    def put(form: Form, text: str, room: int, beginning: bool) -> str:
        return "".join(map(chr, asyncio.run(form.token_ids(desk, text, room, beginning))))

    form = Form.read("a: {text}!")
    assert put(form, "12345", 9, True) == "a: 12345!"
    assert put(form, "12345", 6, True) == "a: 12!"
    assert put(form, "12345", 6, False) == "a: 45!"
    assert put(form, "12345", 2, False) == "a: !"
    assert put(PLAIN, "12345", 3, False) == "345"
    for text in ("", "text", "{text} {text}"):
        with pytest.raises(UsageError, match="once"):
            Form.read(text)


def lettered(folder: Path) -> Path:
    """The golden classifier, with a letter for each token."""
    shutil.copytree(GOLDEN / "classifier", folder)
    tokenizer = characters_form({letter: n for n, letter in enumerate("abcdefghijk")})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def test_tasks_with_models_of_their_own(tmp_path: Path) -> None:
    """`spam` is judged as transformers does; `got` goes to its model with nothing before it."""
    folder = lettered(tmp_path / "m")
    classifier = open_checkpoint(str(folder), labels=True)
    tasks = Tasks(
        got=LocalBackend(open_checkpoint(str(folder)), "f32"),
        spam=LocalBackend(classifier, "f32"),
        labels=labels_of(classifier),
    )
    expected = json.loads((folder / "labels.json").read_text())
    with served(LocalBackend(open_checkpoint("shakespeare-char")), tasks=tasks) as service:

        def post(**asked: Any) -> Any:
            url = f"{service.url}/generate"
            return requests.post(url, json=asked, timeout=SECONDS).json()

        answer = post(prompt="".join("abcdefghijk"[n] for n in expected["ids"]), task_name="spam")
        ham, spam = expected["logits"]
        assert answer["label"] == "spam"
        assert answer["confidence"] == pytest.approx(1 / (1 + math.exp(ham - spam)), abs=1e-4)
        assert answer["usage"] == {"prompt_tokens": 8, "completion_tokens": 0, "total_tokens": 8}
        told = post(prompt="abc", task_name="got", max_new_tokens=4)
        assert set(told["text"]) <= set("abcdefghijk")
        assert told["usage"]["prompt_tokens"] == 3
        assert "characters" in post(prompt="xyz", task_name="got")["detail"]
        assert post(prompt="xyz", max_new_tokens=2)["task"] == "generate"

"""Conversations: what a request carries, what is left out of it, what a file keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from icgpt.chat import Conversation
from icgpt.client import ModelCanister
from icgpt.errors import UsageError
from icgpt.results import Architecture, Completion, Encoding, ModelInfo, Template

SHAPE = Architecture("gpt2", 1, 2, 8, 16, 32, 256, "gelu", True, 1)
INFO = ModelInfo(
    "ready", 0, 0, None, SHAPE, "f32", None, b"\x01", False, {}, None, "stop", True, 1, "0.1.0"
)
TEMPLATE = Template(prefix=[1], suffix=[2], stop=[3])


class Characters:
    """A tokenizer whose ids are code points; not beyond them."""

    def __init__(self, info: ModelInfo) -> None:
        self._info = info

    def info(self) -> ModelInfo:
        return self._info

    def tokenize(self, text: str) -> Encoding:
        kept = [one for one in text if one != "~"]
        return Encoding([ord(one) for one in kept], kept)


def conversation(roles: tuple[str, str] | None = None, **changes: Any) -> Conversation:
    model = cast("ModelCanister", Characters(replace(INFO, **changes)))
    return Conversation(model, roles)


def done(text: str, finish: str = "length", ids: list[int] | None = None) -> Completion:
    return Completion(ids or [ord(one) for one in text], text, finish, None, 0, 0, 0)


def say(talk: Conversation, you: str, answer: Completion, longest: int = 4) -> list[int]:
    request = talk.request(you, longest)
    talk.add(request, answer)
    return request.token_ids


def text(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def test_a_plain_model_goes_on_with_the_transcript() -> None:
    talk = conversation(architecture=replace(SHAPE, n_ctx=100))
    assert text(say(talk, "one", done(" two"))) == "one"
    assert text(say(talk, "", done(" three\n"))) == "one two"
    assert text(say(talk, "four", done("!"))) == "one two three\nfour"
    assert text(say(talk, "five", done("!"))) == "one two three\nfour!\nfive"


def test_a_template_goes_round_each_turn_and_each_answer_ends() -> None:
    talk = conversation(template=TEMPLATE, architecture=replace(SHAPE, n_ctx=100))
    assert say(talk, "a", done("b", "stop", [98, 3])) == [1, 97, 2]
    assert say(talk, "c", done("d", "cancelled")) == [1, 97, 2, 98, 3, 1, 99, 2]
    # The end of a document is no end of this template's: it is put right.
    assert say(talk, "e", done("f", "stop", [102, 0])) == [
        *(1, 97, 2, 98, 3),
        *(1, 99, 2, 100, 3),
        *(1, 101, 2),
    ]
    assert talk.turns[-1].token_ids == [1, 101, 2, 102, 3]


def test_a_stop_text_does_not_stay_in_the_history() -> None:
    talk = conversation(("A", "B"), architecture=replace(SHAPE, n_ctx=100))
    assert talk.stop() == ["\n\n"]
    assert text(say(talk, "hi ", done("ho", "stop", [104, 111, 10, 10]))) == "A:\nhi\n\nB:\n"
    assert text(say(talk, "so", done("x"))) == "A:\nhi\n\nB:\nho\n\nA:\nso\n\nB:\n"
    assert text(talk.request("", 4).token_ids).endswith("B:\nx\n\nB:\n")
    assert conversation().stop() is None


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_full_context_is_trimmed_at_turns(template: Template | None) -> None:
    """Of 16 tokens 4 are kept free for the answer, or half of them when it may be longer."""
    frame = 3 if template else 0
    talk = conversation(template=template)
    for you in ("abc", "def"):
        talk.add(talk.request(you, 4), done("gh"))
    request = talk.request("x", 4)
    assert request.left_out == 1
    assert len(request.token_ids) <= 12
    assert talk.request("x", 100).left_out > 0
    assert talk.request("x" * (14 - frame), 4).left_out == 2
    assert len(talk.turns) == 2, "nothing is forgotten"
    with pytest.raises(UsageError, match="context holds 16"):
        talk.request("x" * 17, 4)


def test_a_context_that_slides_gets_the_end_of_the_transcript() -> None:
    talk = conversation(context="slide")
    say(talk, "abcdef", done("ghijkl\n"))
    whole = talk.request("mn", 4)
    assert (text(whole.token_ids), whole.left_out) == ("abcdefghijkl\nmn", 0)
    request = talk.request("mnopqr", 4)
    assert text(request.token_ids) == "hijkl\nmnopqr"
    assert request.left_out == 1
    assert talk.request("mnopqr", 4, "stop").left_out == 1
    assert talk.request("x" * 99, 4).token_ids == [120] * 12


def test_what_cannot_be_talked_to() -> None:
    for changes, words in (
        ({"architecture": None}, "no model"),
        ({"tokenizer": False}, "icgpt infer"),
        ({"template": TEMPLATE, "roles": ("A", "B")}, "--roles"),
    ):
        with pytest.raises(UsageError) as caught:
            conversation(**cast("dict[str, Any]", changes))
        assert words in f"{caught.value.message} {caught.value.hint}"
    with pytest.raises(UsageError, match="empty"):
        conversation().request("", 4)
    with pytest.raises(UsageError, match="vocabulary"):
        conversation(template=TEMPLATE).request("~", 4)


def test_a_kept_conversation_goes_on_as_it_was() -> None:
    talk = conversation(architecture=replace(SHAPE, n_ctx=100))
    say(talk, "one", done(" two", "stop", [32, 116, 119, 111, 0]))
    say(talk, "three", done("!"))
    kept = talk.to_json()
    again = conversation(architecture=replace(SHAPE, n_ctx=100))
    again.restore(kept)
    assert again.turns == talk.turns
    assert again.to_json() == kept
    # Another model's template goes round it.
    other = conversation(template=TEMPLATE)
    other.restore(kept)
    assert other.turns[0].token_ids == [1, *b"one", 2, *b" two", 3]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"format": "icgpt chat", "version": 2, "roles": None, "turns": []},
        {"format": "other", "version": 1, "roles": None, "turns": []},
        {"format": "icgpt chat", "version": 1, "roles": ["A"], "turns": []},
        {"format": "icgpt chat", "version": 1, "roles": None, "turns": [{"you": "x"}]},
        {"format": "icgpt chat", "version": 1, "roles": None, "turns": {"you": "x"}},
    ],
)
def test_files_that_hold_no_conversation(value: Any) -> None:
    talk = conversation()
    say(talk, "one", done("two"))
    before = talk.to_json()
    with pytest.raises(UsageError):
        talk.restore(value)
    assert talk.to_json() == before


def test_roles_in_a_file_for_a_model_with_a_template() -> None:
    value = {"format": "icgpt chat", "version": 1, "roles": ["A", "B"], "turns": []}
    with pytest.raises(UsageError, match="template"):
        conversation(template=TEMPLATE).restore(value)

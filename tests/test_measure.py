"""What a token takes, measured by queries that are short for some models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from icgpt.errors import CanisterError, UsageError
from icgpt.measure import instructions
from icgpt.results import Completion

TOKEN, PROMPT = 200, 70
REFUSAL = "the prompt alone takes more than a query may do: use complete or submit"


class Stub:
    """A model whose queries may take so much, and no more."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.prompts: list[int] = []

    def info(self) -> Any:
        return SimpleNamespace(architecture=SimpleNamespace(n_ctx=64, vocab_size=9))

    def complete_query(self, ids: list[int], *, max_new_tokens: int, **_: Any) -> Completion:
        self.prompts.append(len(ids))
        work = PROMPT * len(ids) + TOKEN * (max_new_tokens - 1)
        if work > self.most:
            raise CanisterError(REFUSAL)
        return Completion([1] * max_new_tokens, None, "length", None, 1, len(ids), work)


@pytest.mark.parametrize(
    ("most", "prompt"), [(10_000, 16), (1200, 4), (300, 1)], ids=["small", "large", "larger"]
)
def test_as_many_tokens_as_a_query_takes(most: int, prompt: int) -> None:
    model = Stub(most)
    assert instructions(model, 17, 16) == (TOKEN, PROMPT)  # type: ignore[arg-type]
    assert model.prompts[-1] == prompt


def test_one_token_stands_for_the_others() -> None:
    assert instructions(Stub(100), 17, 16) == (PROMPT, PROMPT)  # type: ignore[arg-type]


def test_models_that_no_query_can_run() -> None:
    with pytest.raises(UsageError, match="too large to be measured"):
        instructions(Stub(10), 17, 16)  # type: ignore[arg-type]


def test_other_refusals_are_passed_on() -> None:
    class Refusing(Stub):
        def complete_query(self, ids: list[int], **_: Any) -> Completion:
            raise CanisterError("you may not")

    with pytest.raises(CanisterError, match="you may not"):
        instructions(Refusing(1), 17, 16)  # type: ignore[arg-type]

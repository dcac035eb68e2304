"""What clients of OpenAI's interface ask, checked, and as options of a generation.

Beside OpenAI's own names there are those of docs/options.md that it has none for. What the engine
can't do is refused, not passed over.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from icgpt.errors import UsageError
from icgpt.methods import OPTION_NAMES

MOST_CHOICES: Final = 16
MOST_PROMPTS: Final = 64
_COMPLETION_TOKENS: Final = 16  # what OpenAI's completions have when nobody says how many

Number = Annotated[float, Field(allow_inf_nan=False)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 32, strict=True)]
Prompt = str | Annotated[list[TokenId], Field(min_length=1)]
OwnNames: Final = ("top_k", "typical_p", "repetition_penalty", "no_repeat_ngram_size")


class StreamOptions(BaseModel):
    """What a stream tells beside the text."""

    include_usage: bool | None = None


class Asked(BaseModel):
    """What both kinds of requests have."""

    model: str | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)] | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    logit_bias: dict[str, Annotated[Number, Field(ge=-100, le=100)]] | None = None
    user: str | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    top_k: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    typical_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0)] | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None

    @property
    def choices(self) -> int:
        """How many answers to each prompt."""
        return self.n or 1

    def tokens(self) -> int | None:
        """How many new tokens an answer may have; None is as many as there is room for."""
        raise NotImplementedError

    def places(self) -> int | None:
        """How many of the likeliest tokens are told at each place; None is no log-probabilities."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """The request as options of a generation; UsageError for what the engine can't do."""
        if self.presence_penalty or self.frequency_penalty:
            raise UsageError(
                "presence_penalty and frequency_penalty can only be 0 here",
                "There is repetition_penalty.",
            )
        options: dict[str, Any] = {
            "max_new_tokens": self.tokens(),
            "min_new_tokens": self.min_tokens,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": self.top_p or None,
            "stop": [self.stop] if isinstance(self.stop, str) else self.stop or None,
            "seed": None if self.seed is None else self.seed % (1 << 64),
            "logprobs": self.places(),
            "template": False,
            **{name: getattr(self, name) for name in OwnNames},
        }
        if self.top_p == 0:
            options["top_k"] = 1
        if self.logit_bias:
            options["logit_bias"] = _biases(self.logit_bias)
        return {name: value for name, value in options.items() if value is not None}


class CompletionAsked(Asked):
    """A request for completions."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"prompt": "ROMEO:", "max_tokens": 20, "temperature": 0.8}}
    )

    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=MOST_PROMPTS)]
    max_tokens: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    suffix: str | None = None

    def prompts(self) -> list[str | list[int]]:
        """One or several."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

    def tokens(self) -> int | None:
        """As many as were asked for, or OpenAI's usual number."""
        return _COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens

    def places(self) -> int | None:
        """As OpenAI's number says; to choose the best, at least the chosen one's."""
        return 0 if self.logprobs is None and self.candidates > self.choices else self.logprobs

    @property
    def candidates(self) -> int:
        """How many answers are written to each prompt, the best of which are given."""
        return max(self.best_of or 1, self.choices)

    def options(self) -> dict[str, Any]:
        """The request as options of a generation."""
        if self.suffix:
            raise UsageError("the model goes on from a prompt, and can't fit a suffix")
        if self.best_of is not None and self.best_of < self.choices:
            raise UsageError("best_of can't be less than n")
        if self.stream and self.candidates > self.choices:
            raise UsageError("the best can't be known while a stream is written")
        return super().options()


class Part(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Turn(BaseModel):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None

    def said(self) -> str:
        """Its text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class Format(BaseModel):
    """What an answer is to look like."""

    type: Literal["text"]


class ChatAsked(Asked):
    """A request for the next message of a conversation."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
                "max_tokens": 20,
            }
        }
    )

    messages: Annotated[list[Turn], Field(min_length=1, max_length=1000)]
    max_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Format | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None

    def tokens(self) -> int | None:
        """As many as were asked for, by either name."""
        return self.max_completion_tokens or self.max_tokens

    def places(self) -> int | None:
        """As OpenAI's two options say."""
        return (self.top_logprobs or 0) if self.logprobs else None


def _biases(given: dict[str, float]) -> list[dict[str, Any]]:
    if "logit_bias" not in OPTION_NAMES:
        raise UsageError("logit_bias is not known here")
    if not all(one.isascii() and one.isdigit() and len(one) < 10 for one in given):
        raise UsageError("logit_bias has token ids as its names")
    return [{"token_id": int(one), "bias": bias} for one, bias in given.items()]

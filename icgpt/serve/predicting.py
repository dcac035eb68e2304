"""Predictions as a Truss gives them: dictionaries with a prompt and parameters, and the texts.

Parameters have the names and meanings of transformers' `generate`. Without `do_sample` the
likeliest tokens are taken, and what only sampling uses counts for nothing; with it `top_k` is 50
where it is not said. Lengths count the prompt's tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from icgpt.errors import UsageError
from icgpt.serve.desk import Desk

MAX_LENGTH: Final = 512
MAX_MIN_LENGTH: Final = 64
NEW_TOKENS: Final = 50  # where nobody says how long
MAX_PROMPTS: Final = 64
MAX_SEQUENCES: Final = 16
MAX_BEAMS: Final = 32
_TOP_K: Final = 50
_MOST: Final = 1 << 20

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=_MOST)]


class Input(BaseModel):
    """A prompt, and how to go on from it."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={
            "example": {"prompt": "If I was a billionaire, I would", "max_length": 50}
        },
    )

    prompt: str = Field(min_length=1)
    max_length: Annotated[int, Field(ge=1, le=_MOST)] | None = Field(
        None, description=f"Tokens of prompt and text; {MAX_LENGTH} at most."
    )
    min_length: Count | None = Field(
        None, description=f"The same at least; {MAX_MIN_LENGTH} at most."
    )
    do_sample: bool | None = None
    early_stopping: bool | Literal["never"] | None = None
    num_beams: Annotated[int, Field(ge=1, le=MAX_BEAMS)] | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_k: Count | None = Field(None, description="0 means all.")
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    repetition_penalty: Positive | None = None
    length_penalty: Finite | None = None
    encoder_no_repeat_ngram_size: Count | None = Field(None, description="0 means none.")
    num_return_sequences: Annotated[int, Field(ge=1, le=MAX_SEQUENCES)] | None = None
    max_time: Positive | None = Field(None, description="Seconds.")
    num_beam_groups: Annotated[int, Field(ge=1, le=MAX_BEAMS)] | None = None
    diversity_penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    remove_invalid_values: bool | None = None

    @property
    def searches(self) -> bool:
        """Whether it looks for the likeliest text with beams."""
        return (self.num_beams or 1) > 1

    def options(self, prompt_tokens: int) -> dict[str, Any]:
        """As the desk takes them, behind a prompt of so many tokens."""
        longest = NEW_TOKENS
        if self.max_length is not None:
            longest = min(self.max_length, MAX_LENGTH) - prompt_tokens
            if longest < 1:
                raise UsageError(
                    f"the prompt has {prompt_tokens:,} tokens already, and max_length is "
                    f"{min(self.max_length, MAX_LENGTH)}",
                    f"Ask for more, up to {MAX_LENGTH}.",
                )
        shortest = max(0, min(self.min_length or 0, MAX_MIN_LENGTH) - prompt_tokens)
        options: dict[str, Any] = {
            "template": False,
            "max_new_tokens": longest,
            "min_new_tokens": min(shortest, longest) or None,
            "temperature": 0.0,
            "repetition_penalty": self.repetition_penalty,
            "encoder_no_repeat_ngram_size": self.encoder_no_repeat_ngram_size or None,
            "max_time": self.max_time,
            "num_return_sequences": self.num_return_sequences,
            "remove_invalid_values": self.remove_invalid_values or None,
        }
        if self.do_sample:
            top_k = _TOP_K if self.top_k is None else self.top_k
            warmth = 1.0 if self.temperature is None else self.temperature
            options |= {"temperature": warmth, "top_k": top_k or None, "top_p": self.top_p}
        if self.searches:
            options |= {
                "num_beams": self.num_beams,
                "num_beam_groups": self.num_beam_groups,
                "diversity_penalty": self.diversity_penalty,
                "length_penalty": self.length_penalty,
                "early_stopping": self.early_stopping,
            }
        return options


class Inputs(RootModel[list[Input]]):
    """Prompts, each with its parameters."""

    root: Annotated[list[Input], Field(min_length=1, max_length=MAX_PROMPTS)]


class Output(BaseModel):
    """The texts, or why there are none."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "status": "success",
                "data": "If I was a billionaire, I would buy a plane.",
                "message": None,
            }
        }
    )

    status: Literal["success", "failed"]
    data: str | list[str] | None
    message: str | None

    @classmethod
    def failed(cls, message: str) -> Output:
        """Of what could not be answered."""
        return cls(status="failed", data=None, message=message)


async def predict(desk: Desk, inputs: Sequence[Input]) -> Output:
    """Goes on from all prompts, each with its own parameters."""
    found = await asyncio.gather(*(_texts(desk, one) for one in inputs))
    texts = [text for some in found for text in some]
    return Output(status="success", data=texts[0] if len(texts) == 1 else texts, message=None)


async def _texts(desk: Desk, asked: Input) -> list[str]:
    """A prompt's texts, the prompt in front."""
    count = asked.num_return_sequences or 1
    if count > (asked.num_beams or 1) and (asked.searches or not asked.do_sample):
        raise UsageError(
            f"num_return_sequences is {count}, and only {asked.num_beams or 1} can be found",
            "Ask for as many with num_beams, or for any number with do_sample.",
        )
    ids = await desk.token_ids(asked.prompt)
    done = await desk.complete(ids, asked.options(len(ids)))
    return [asked.prompt + one.text for one in (done, *done.others)]

"""What OpenAI's clients are answered, as the service's document tells it.

Completions are put together as plain dictionaries, and are not checked against these on their way
out: a test holds real answers against the document.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from icgpt.serve.usage import Usage

Finish = Literal["stop", "length", "cancelled", "failed"]


class Fault(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str


class Refusal(BaseModel):
    """Why there is no answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "error": {
                    "message": "n: Input should be greater than or equal to 1",
                    "type": "invalid_request_error",
                    "param": "n",
                    "code": "invalid_request",
                }
            }
        }
    )

    error: Fault


class Model(BaseModel):
    """A model, and what is known of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "shakespeare-char",
                "object": "model",
                "created": 0,
                "owned_by": "icgpt",
                "max_model_len": 256,
                "parameters": 2731200,
                "precision": "int8",
            }
        }
    )

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    parameters: int
    precision: str


class ModelList(BaseModel):
    """The models that there are."""

    object: Literal["list"]
    data: list[Model]


class Frame(BaseModel):
    """What all documents of one answer have in common."""

    id: str
    created: int
    model: str
    system_fingerprint: str


class CompletionLogprobs(BaseModel):
    """Log-probabilities of a completion's tokens, a list entry for each; null where none is."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionText(BaseModel):
    """A text, or a piece of one."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None


class CompletionChoice(CompletionText):
    """One of the texts."""

    finish_reason: Finish


class CompletionPiece(CompletionText):
    """A piece of one of the texts; the last one tells how it ended."""

    finish_reason: Finish | None


class Completion(Frame):
    """How the model goes on from each prompt."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: Usage


class CompletionChunk(Frame):
    """What is new of a completion; `usage` only where it is asked for, and null till the end."""

    object: Literal["text_completion"]
    choices: list[CompletionPiece]
    usage: Usage | None = None


class LikelyToken(BaseModel):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChosenToken(LikelyToken):
    """A token of the answer, and those that were likeliest in its place."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(BaseModel):
    """Log-probabilities of a message's tokens."""

    content: list[ChosenToken]
    refusal: None


class Message(BaseModel):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    refusal: None


class Delta(BaseModel):
    """What is new of a message: its role first, then its text, nothing at the end."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None


class ChatChoice(BaseModel):
    """One of the messages."""

    index: int
    message: Message
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatPiece(BaseModel):
    """A piece of one of the messages; the last one tells how it ended."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None


class ChatCompletion(Frame):
    """What comes next in a conversation."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage


class ChatChunk(Frame):
    """What is new of a conversation; `usage` only where it is asked for, and null till the end."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatPiece]
    usage: Usage | None = None

"""`POST /complete-sentence`: a text, and how a model would go on from it."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from icgpt.serve.desk import TheDesk
from icgpt.serve.keys import KNOWN_CALLER
from icgpt.serve.problems import REFUSALS
from icgpt.serve.prompts import PLAIN

router = APIRouter(tags=["sentences"], dependencies=[KNOWN_CALLER], responses=REFUSALS)

NEW_TOKENS: Final = 50
_OPTIONS: Final[dict[str, Any]] = {
    "max_new_tokens": NEW_TOKENS,
    "temperature": 1.0,
    "top_k": 50,
    "template": False,
}


class Beginning(BaseModel):
    """How a sentence begins."""

    model_config = ConfigDict(
        strict=True, json_schema_extra={"example": {"text": "The quick brown fox"}}
    )

    text: str = Field(min_length=1)


class Sentence(BaseModel):
    """The beginning, and what the model wrote behind it."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"completed_sentence": "The quick brown fox is a friend"}}
    )

    completed_sentence: str


@router.post("/complete-sentence")
async def complete_sentence(body: Beginning, desk: TheDesk) -> Sentence:
    """Goes on from a text, by about 50 tokens; of a text that is too long the end counts."""
    room = max(1, desk.max_context - NEW_TOKENS)
    ids = await PLAIN.token_ids(desk, body.text, room, beginning=False)
    done = await desk.complete(ids, _OPTIONS)
    return Sentence(completed_sentence=body.text + done.text)

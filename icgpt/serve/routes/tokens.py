"""Texts and token ids."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from icgpt.errors import UsageError
from icgpt.serve.desk import TheDesk
from icgpt.serve.keys import KNOWN_CALLER
from icgpt.serve.problems import REFUSALS

router = APIRouter(tags=["tokens"], dependencies=[KNOWN_CALLER], responses=REFUSALS)


class Text(BaseModel):
    """A text."""

    model_config = ConfigDict(json_schema_extra={"example": {"text": "ROMEO:"}})

    text: str


class Tokens(BaseModel):
    """Token ids, and the text of each."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"token_ids": [30, 27], "tokens": ["R", "O"], "count": 2}}
    )

    token_ids: list[int]
    tokens: list[str]
    count: int


class TokenIds(BaseModel):
    """Token ids."""

    model_config = ConfigDict(json_schema_extra={"example": {"token_ids": [30, 27]}})

    token_ids: list[Annotated[int, Field(ge=0, strict=True)]]


@router.post("/tokenize")
async def tokenize(body: Text, desk: TheDesk) -> Tokens:
    """Turns a text into token ids."""
    ids = await desk.backend.tokenize(body.text)
    return Tokens(token_ids=ids, tokens=await desk.backend.decode_each(ids), count=len(ids))


@router.post("/detokenize")
async def detokenize(body: TokenIds, desk: TheDesk) -> Text:
    """Turns token ids into text."""
    vocabulary = desk.backend.facts.vocab_size
    if any(one >= vocabulary for one in body.token_ids):
        raise UsageError(f"token ids go from 0 to {vocabulary - 1:,}")
    return Text(text=await desk.text(body.token_ids))

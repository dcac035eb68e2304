"""`POST /generate`: a prompt, and a task for it: spam, got, or just to go on."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from icgpt.serve.desk import TheDesk
from icgpt.serve.keys import KNOWN_CALLER
from icgpt.serve.problems import REFUSALS
from icgpt.serve.prompts import PLAIN
from icgpt.serve.tasks import TheTasks
from icgpt.serve.usage import Usage

router = APIRouter(tags=["tasks"], dependencies=[KNOWN_CALLER], responses=REFUSALS)

_SPAM, _GOT, _OTHER = "spam", "got", "generate"
_MOST: Final = 1 << 20


class Asked(BaseModel):
    """A prompt, and what is to be done with it."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "example": {
                "prompt": "The quick brown fox",
                "task_name": "got",
                "max_new_tokens": 12,
                "temperature": 0.8,
                "top_p": 0.9,
                "top_k": 50,
            }
        },
    )

    prompt: str = Field(min_length=1)
    task_name: str | None = Field(
        None, description="`spam` judges the prompt, `got` writes of Westeros, others go on."
    )
    max_new_tokens: int = Field(50, ge=1, le=_MOST)
    temperature: float = Field(0.8, ge=0, le=100, allow_inf_nan=False)
    top_p: float = Field(0.9, gt=0, le=1, allow_inf_nan=False)
    top_k: int = Field(50, ge=0, le=_MOST, description="0 means all.")

    def options(self) -> dict[str, Any]:
        """As the desk takes them."""
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k or None,
            "template": False,
        }


class Done(BaseModel):
    """The prompt with what was written behind it; of `spam` the label."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "task": "spam",
                "label": "not spam",
                "confidence": 0.93,
                "text": "not spam",
                "usage": {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9},
            }
        }
    )

    task: str
    label: str | None = None
    confidence: float | None = None
    text: str
    usage: Usage


@router.post("/generate", response_model_exclude_none=True)
async def generate(body: Asked, desk: TheDesk, tasks: TheTasks) -> Done:
    """Goes on from a prompt, or says whether it is spam."""
    if body.task_name == _SPAM:
        found = await tasks.judge.judge(body.prompt)
        return Done(
            task=_SPAM,
            label=found.label,
            confidence=round(found.confidence, 6),
            text=found.label,
            usage=Usage.of(found.tokens, 0),
        )
    form = PLAIN
    if body.task_name == _GOT:
        desk, form = tasks.got, tasks.got_form
    # Half of the context belongs to the prompt, however much is to be written.
    most = desk.max_context
    room = most - min(body.max_new_tokens, most // 2)
    ids = await form.token_ids(desk, body.prompt, room, beginning=False)
    done = await desk.complete(ids, body.options())
    return Done(
        task=_GOT if body.task_name == _GOT else _OTHER,
        text=body.prompt + done.text,
        usage=Usage.of(done.prompt_tokens, len(done.token_ids)),
    )

"""Whether the service works, and on what: for everybody, without a key."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from icgpt.serve.desk import TheDesk
from icgpt.serve.errors import DownError
from icgpt.serve.problems import Refused, refusals

router = APIRouter(tags=["service"])


class Health(BaseModel):
    """The service works."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"status": "ok", "model": "shakespeare-char", "backend": "local"}
        }
    )

    status: str
    model: str
    backend: str


@router.get("/health", responses=refusals(Refused, 503))
async def health(desk: TheDesk) -> Health:
    """Says whether the service works."""
    if not desk.backend.alive():
        raise DownError("the model can't write just now", retry_after=5)
    facts = desk.backend.facts
    return Health(status="ok", model=facts.name, backend=facts.backend)

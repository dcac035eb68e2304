"""A Truss's routes: predictions under a model's name, and whether it is there.

One model answers, whatever name it is asked by: the names are those of the deployments that clients
were written for.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter

from icgpt.serve import problems
from icgpt.serve.desk import TheDesk
from icgpt.serve.errors import DownError
from icgpt.serve.keys import KNOWN_CALLER
from icgpt.serve.openai.answered import Refusal
from icgpt.serve.predicting import Inputs, Output
from icgpt.serve.predicting import predict as predicted

router = APIRouter(tags=["predictions"])

_REFUSALS: Final = problems.refusals(Output)
_PATHS: Final = r"/models/[^/]+/predict$|/v1/models/[^/]+:predict$"


def _shape(problem: problems.Problem) -> Any:
    return Output.failed(problem.message).model_dump()


problems.shaped(_PATHS, _shape)


@router.post("/models/{model_id}/predict", dependencies=[KNOWN_CALLER], responses=_REFUSALS)
async def predict(model_id: str, body: Inputs, desk: TheDesk) -> Output:
    """Goes on from prompts."""
    return await predicted(desk, body.root)


@router.post("/v1/models/{model_name}:predict", dependencies=[KNOWN_CALLER], responses=_REFUSALS)
async def predict_by_name(model_name: str, body: Inputs, desk: TheDesk) -> Output:
    """Goes on from prompts."""
    return await predicted(desk, body.root)


@router.get("/v1/models/{model_name}/loaded", responses=problems.refusals(Refusal, 422, 503))
async def loaded(model_name: str, desk: TheDesk) -> dict[str, str]:
    """Says that the model is there."""
    if not desk.backend.alive():
        raise DownError("the model can't write just now", retry_after=5)
    return {}


@router.get("/")
async def alive() -> bool:
    """Says that the service is there, whether or not its model can write."""
    return True

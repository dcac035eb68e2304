"""What the service has counted, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from icgpt.serve.desk import TheDesk
from icgpt.serve.keys import KNOWN_CALLER
from icgpt.serve.problems import REFUSALS

router = APIRouter(tags=["service"], dependencies=[KNOWN_CALLER], responses=REFUSALS)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(desk: TheDesk) -> Response:
    """Gives all figures."""
    return Response(desk.figures.text(), media_type=CONTENT_TYPE_LATEST)

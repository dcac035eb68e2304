"""From an error to an HTTP answer: status, headers, and the shape that a route's clients read.

Routes raise the types of `icgpt.errors` and `icgpt.serve.errors`. What has another shape than
`{"detail": …}` registers it with `shaped` under the beginning of its path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from icgpt.engine import EngineMemoryError
from icgpt.errors import BusyError as NetworkBusyError
from icgpt.errors import CanisterError, IcgptError, NetworkError, UsageError
from icgpt.serve.errors import ServiceError

_MOST_FAULTS: Final = 5


@dataclass(frozen=True)
class Problem:
    """What went wrong, before it has a shape."""

    status: int
    kind: str
    message: str
    field: str | None = None
    """Which part of the request it is about."""
    retry_after: int | None = None


_REASONS: Final = {
    401: "No known key came with the request.",
    404: "What is asked for is not here.",
    413: "The request is too large.",
    422: "The request makes no sense; the message says why.",
    429: "Too much is asked at once; Retry-After says when to come again.",
    503: "The model can't write just now.",
}
Responses: TypeAlias = dict[int | str, dict[str, Any]]


def refusals(shape: type[BaseModel], *statuses: int) -> Responses:
    """What a route can refuse a request with, for the documentation; all where none is named."""
    return {
        status: {"description": _REASONS[status], "model": shape} for status in statuses or _REASONS
    }


class Refused(BaseModel):
    """Why a request was refused."""

    detail: str


REFUSALS: Final = refusals(Refused)
"""What routes can refuse a request with that have no shape of their own."""

Shape: TypeAlias = Callable[[Problem], Any]
_shapes: list[tuple[re.Pattern[str], Shape]] = []


def shaped(pattern: str, shape: Shape) -> None:
    """Gives problems of all paths that a regular expression matches a shape."""
    _shapes.append((re.compile(pattern), shape))


def problem_of(error: Exception) -> Problem:
    """What an error is to a caller."""
    match error:
        case ServiceError():
            return Problem(error.status, error.kind, _said(error), retry_after=error.retry_after)
        case UsageError():
            return Problem(422, error.kind, _said(error))
        case EngineMemoryError():
            return Problem(503, error.kind, _said(error), retry_after=1)
        case CanisterError():
            return Problem(422, error.kind, _said(error))
        case NetworkBusyError():
            return Problem(503, error.kind, _said(error), retry_after=1)
        case NetworkError():
            return Problem(503, error.kind, _said(error))
        case IcgptError():
            return Problem(500, error.kind, _said(error))
    return Problem(500, "failed", "the service failed; its log says why")


def answer(path: str, problem: Problem) -> Response:
    """The HTTP answer for a problem of a path."""
    shape = next((shape for pattern, shape in _shapes if pattern.match(path)), _plain)
    headers = {}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    # Plain ASCII: a request's own words may hold what can't be written otherwise.
    body = json.dumps(shape(problem), allow_nan=False)
    return Response(body, problem.status, headers, "application/json")


def install(app: FastAPI) -> None:
    """Lets an application answer every error so."""

    async def ours(request: Request, error: Exception) -> Response:
        return answer(request.url.path, problem_of(error))

    async def invalid(request: Request, error: Exception) -> Response:
        faults = error.errors() if isinstance(error, RequestValidationError) else []
        return answer(request.url.path, invalid_request(faults))

    async def other(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        words = {404: "there is nothing here", 405: "this path takes another method"}
        message = words.get(error.status_code, str(error.detail))
        problem = Problem(error.status_code, "http", message)
        if error.status_code == 400:  # bytes that are no UTF-8, or nested too deep
            problem = Problem(422, "invalid_request", "the request can't be read as JSON")
        response = answer(request.url.path, problem)
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(IcgptError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, other)


def _plain(problem: Problem) -> Any:
    return Refused(detail=problem.message).model_dump()


def _said(error: IcgptError) -> str:
    message = error.message.strip().rstrip(".")
    return f"{message}. {error.hint}" if error.hint else message


def invalid_request(faults: Sequence[Any]) -> Problem:
    """What is wrong with a request's body or path, without what it holds."""
    told = [(_place(fault), str(fault["msg"])) for fault in faults[:_MOST_FAULTS]]
    more = f"; and {len(faults) - len(told)} more" if len(faults) > len(told) else ""
    words = "; ".join(f"{place}: {message}" if place else message for place, message in told)
    return Problem(
        422, "invalid_request", (words or "invalid") + more, told[0][0] if told else None
    )


def _place(fault: Any) -> str | None:
    """Where in the request, such as "messages.0.role"."""
    parts = [str(part) for part in fault["loc"] if part not in ("body", "query", "path")]
    return ".".join(parts)[:100] or None

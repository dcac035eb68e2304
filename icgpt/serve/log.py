"""The log: a JSON document a line on stderr. It has no prompts unless the settings ask for them."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from starlette.types import Scope

from icgpt.serve.record import Record

_log: Final = logging.getLogger("icgpt.serve")
_FIELDS: Final = "fields"


class _Lines(logging.Formatter):
    """One JSON document for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, in plain ASCII."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def begin() -> None:
    """Sends what the service and its server say to stderr, in lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name, level in (("icgpt.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)


def say(event: str, **fields: Any) -> None:
    """Notes that something has happened."""
    _log.info(event, extra={_FIELDS: fields})


def request(scope: Scope, noted: Record, status: int, seconds: float) -> None:
    """Notes a request that was answered."""
    fields: dict[str, Any] = {
        "id": noted.id,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "milliseconds": round(1000 * seconds, 1),
        "caller": noted.caller,
    }
    if noted.prompt_tokens:
        fields["prompt_tokens"] = noted.prompt_tokens
        fields["completion_tokens"] = noted.completion_tokens
        fields["finish"] = noted.finishes
    if noted.first_token is not None:
        fields["first_token_milliseconds"] = round(1000 * (noted.first_token - noted.began), 1)
    if noted.prompts:
        fields["prompts"] = noted.prompts
        fields["answer"] = "".join(noted.answers)
    say("request", **fields)


def failed(scope: Scope) -> None:
    """Notes a fault of the service itself, with where it happened."""
    _log.exception("failed", extra={_FIELDS: {"path": scope["path"]}})

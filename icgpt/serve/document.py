"""The document of the interface, `/openapi.json`, with what FastAPI can't know of streams.

A route tells of its stream by `responses={200: stream_of(Chunk)}`. The schemas that this refers to
come into the document with those of all other answers.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from icgpt.serve.sse import DONE, EventStream

_PLACE: Final = "#/components/schemas/{model}"
_streamed: list[type[BaseModel]] = []


def stream_of(*documents: type[BaseModel]) -> dict[str, Any]:
    """A response whose events each hold one of these documents, the last one `[DONE]`.

    `itemSchema` is of OpenAPI 3.2. FastAPI, too, writes it into documents of 3.1: no other word is
    there for events, and who does not know it leaves it aside.
    """
    _streamed.extend(documents)
    shapes = [{"$ref": _PLACE.format(model=one.__name__)} for one in documents]
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": shapes},
    }
    item = {
        "type": "object",
        "properties": {"data": {"anyOf": [data, {"const": DONE}]}},
        "required": ["data"],
    }
    return {"content": {EventStream.media_type: {"itemSchema": item}}}


class Service(FastAPI):
    """An application whose document has what its streams hold."""

    def openapi(self) -> dict[str, Any]:
        """The document."""
        before = self.openapi_schema
        document = super().openapi()
        if document is not before:  # made now, and kept by FastAPI
            known = document["components"]["schemas"]
            found = models_json_schema(
                [(one, "serialization") for one in _streamed], ref_template=_PLACE
            )
            for name, schema in found[1]["$defs"].items():
                known.setdefault(name, schema)
        return document

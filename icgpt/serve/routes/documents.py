"""The page about the service's interface. Its files come from here, not from other hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import fastapi_offline
from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse

from icgpt.serve.errors import NotFoundError

router = APIRouter(include_in_schema=False)

_FILES: Final = Path(fastapi_offline.__file__).parent / "static"
_TYPES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


@router.get("/docs")
async def page(request: Request) -> HTMLResponse:
    """Shows what can be asked, with a form for each route."""
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title=request.app.title,
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
    )


@router.get("/docs/{name}")
async def file(name: str) -> FileResponse:
    """Gives a file of the page."""
    if name not in _TYPES:
        raise NotFoundError("there is nothing here")
    return FileResponse(_FILES / name, media_type=_TYPES[name])

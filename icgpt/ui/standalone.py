"""The page for one model as a program of its own: what app.py of a Space runs."""

from __future__ import annotations

import os
import sys

from icgpt.checkpoint import open_checkpoint
from icgpt.errors import IcgptError
from icgpt.transport import LOOPBACK
from icgpt.ui.local import LocalWriter
from icgpt.ui.page import build_page
from icgpt.ui.serving import serve, wait


def run(model: str, revision: str | None = None, title: str = "icgpt") -> None:
    """Serves a page until it is ended.

    It listens where GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say, as Spaces set them; without
    them on this machine alone.

    Args:
        model: a folder, or owner/name of a model on the hub.
        revision: of a model on the hub.
        title: what the page is called.
    """
    host = os.environ.get("GRADIO_SERVER_NAME") or LOOPBACK[0]
    port = os.environ.get("GRADIO_SERVER_PORT") or ""
    try:
        writer = LocalWriter(open_checkpoint(model, revision=revision))
        page = build_page([writer], title)
        url = serve(page, host, int(port) if port.isdigit() else None)
    except IcgptError as error:
        sys.exit(f"{error} {error.hint or ''}".strip())

    def ready() -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()

    wait(page, ready)

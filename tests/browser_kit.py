"""A real browser without a window, for tests of pages; they are skipped where there is none.

`./scripts/setup --browser` installs both parts: Debian's Chromium, and playwright to drive it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def browser() -> Iterator[Any]:
    """A browser. It holds an event loop of this thread, so it is to end with its module."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is missing: ./scripts/setup --browser"
    )
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("Chromium is missing: ./scripts/setup --browser")
    with playwright.sync_playwright() as driver:
        # Without the sandbox, which root can't have; it only opens pages of the tests.
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def opened_page(opened: Any, url: str, **look: Any) -> Iterator[Any]:
    """A page that may only ask the server that it came from, and must raise no error."""
    host = urlsplit(url).netloc
    foreign: list[str] = []
    errors: list[str] = []

    def note(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != host:
            foreign.append(request.url)

    page = opened.new_page(**look)
    page.on("request", note)
    page.on("websocket", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        page.goto(url)
        yield page
    finally:
        page.close()
    assert not foreign, f"asked other servers: {foreign}"
    assert not errors, f"raised errors: {errors}"

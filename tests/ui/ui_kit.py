"""What tests of the page build on: a writer that waits for its test, and a served page."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from icgpt.ui.writers import Progress, Writer

SECONDS = 20


class Puppet:
    """Writes what a test puts: a text goes on, None ends it."""

    def __init__(self, name: str = "puppet") -> None:
        self.name = name
        self.about = "writes what it is given"
        self.forget()

    def forget(self) -> None:
        """Begins anew, for another test."""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.pieces: queue.Queue[str | None] = queue.Queue()
        self.ended = threading.Event()

    def write(self, text: str, /, **options: Any) -> Iterator[Progress]:
        self.asked.append((text, options))
        whole = ""
        count = 0
        try:
            while True:
                try:
                    piece = self.pieces.get(timeout=0.05)
                except queue.Empty:
                    yield Progress(whole, count, None)
                    continue
                if piece is None:
                    yield Progress(whole, count, "length")
                    return
                whole, count = whole + piece, count + 1
        finally:
            self.ended.set()

    def close(self) -> None:
        pass


@contextmanager
def served(*writers: Writer) -> Iterator[str]:
    """The address of a page with these writers."""
    from icgpt.ui.page import build_page
    from icgpt.ui.serving import serve

    page = build_page(writers)
    try:
        yield serve(page, port=0)
    finally:
        page.close(verbose=False)

"""An HTTP server on loopback that runs while its context lasts; subclasses say what it answers."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Quiet:
    """A handler that keeps connections open and says nothing of its own."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass


class LoopbackServer:
    """Serves in a thread of its own; `url` is where."""

    def serve(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def __exit__(self, *arguments: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

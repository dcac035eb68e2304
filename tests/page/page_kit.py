"""The built page on this machine: a server with the page's files, and the way to the network.

It stands in for the page's canister where a test wants another configuration than a deployed one,
and sends the same Content-Security-Policy.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


@contextmanager
def served(folder: Path, network: str, config: dict[str, Any] | None) -> Iterator[str]:
    """The address of a page whose calls go to a network; without a configuration it has no file."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path.startswith("/api/"):
                self._pass_on(requests.get(network + self.path, timeout=60))
            elif path == "/config.json":
                status = 404 if config is None else 200
                self._answer(status, "application/json", json.dumps(config).encode())
            else:
                file = folder / path.lstrip("/")
                if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
                    file = folder / "index.html"
                self._answer(200, TYPES.get(file.suffix, "text/plain"), file.read_bytes())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {"Content-Type": self.headers["Content-Type"]}
            self._pass_on(
                requests.post(network + self.path, data=body, headers=headers, timeout=120)
            )

        def _pass_on(self, answer: requests.Response) -> None:
            kind = answer.headers.get("Content-Type", "text/plain")
            self._answer(answer.status_code, kind, answer.content)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", POLICY)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

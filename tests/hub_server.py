"""A small Hugging Face hub on this machine: models out of folders, at one commit each."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TOKEN = "hf_" + 20 * "x"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Runs while its context lasts. A model is an id and a folder; `gated` ones want TOKEN."""

    def __init__(self, models: Mapping[str, Path], gated: str = "") -> None:
        self.models, self.gated = dict(models), gated
        self.fetched: list[str] = []

    def __enter__(self) -> HubServer:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(False)

            def do_GET(self) -> None:
                self.answer(True)

            def answer(self, whole: bool) -> None:
                path = urlsplit(self.path).path
                allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                status, headers, body = hub.handle(path, allowed)
                if whole and "/resolve/" in path and status == 200:
                    hub.fetched.append(path.rpartition("/")[2])
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if whole:
                    self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *arguments: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def handle(self, path: str, allowed: bool) -> tuple[int, dict[str, str], bytes]:
        parts = path.removeprefix("/api/models").strip("/").split("/")
        model, rest = "/".join(parts[:2]), parts[2:]
        if model not in self.models:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if model == self.gated and not allowed:
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        files = sorted(one for one in self.models[model].iterdir() if one.is_file())
        if not rest or rest[0] == "revision":
            siblings = [{"rfilename": one.name} for one in files]
            return (
                200,
                {},
                json.dumps(
                    {"id": model, "sha": COMMIT, "siblings": siblings, "private": False}
                ).encode(),
            )
        if rest[0] == "tree":
            tree = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": etag(f)}
                for f in files
            ]
            return 200, {}, json.dumps(tree).encode()
        file = self.models[model] / rest[2]
        if rest[0] != "resolve" or file not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        headers = {"ETag": f'"{etag(file)}"', "X-Repo-Commit": COMMIT}
        return 200, headers, file.read_bytes()


def etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()

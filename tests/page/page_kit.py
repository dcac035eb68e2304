"""The built page on this machine, and how tests use it.

`deployed` puts it into a canister; the network's gateway serves it from there, checking what comes.
`served` stands in for that where a test wants another configuration than a deployed page can have:
a server with its files and the way to the network, as strict about scripts and styles as can be.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from loopback_server import LoopbackServer, Quiet
from model_kit import ROOT, target

from icgpt.agent import Agent
from icgpt.candid import Opt, encode
from icgpt.client import ModelCanister
from icgpt.deploy import install, read_wasm
from icgpt.network import NetworkInfo
from icgpt.page import CONFIG, NAME, address
from icgpt.project import Project
from icgpt.results import Completion

BUILT = ROOT / "canister" / "build"
SECONDS = 60_000
DESKTOP = {"width": 1280, "height": 900}
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


class Site(LoopbackServer):
    """Serves a folder of files; calls go to a network."""

    def __init__(self, folder: Path, network: str, config: dict[str, Any] | None) -> None:
        class Handler(Quiet, BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                if path.startswith("/api/"):
                    self._pass_on(requests.get(network + self.path, timeout=60))
                elif path == "/config.json":
                    status = 404 if config is None else 200
                    self._answer(status, "application/json", json.dumps(config).encode())
                else:
                    file = folder / path.lstrip("/")
                    inside = file.resolve().is_relative_to(folder.resolve())
                    if not inside or not file.is_file():
                        file = folder / "index.html"
                    self._answer(200, TYPES.get(file.suffix, "text/plain"), file.read_bytes())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {"Content-Type": self.headers["Content-Type"]}
                url = network + self.path
                self._pass_on(requests.post(url, data=body, headers=headers, timeout=120))

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

        self.serve(Handler)


@contextmanager
def served(folder: Path, network: str, config: dict[str, Any] | None) -> Iterator[str]:
    """The address of a page; without a configuration it has no file of it."""
    site = Site(folder, network, config)
    try:
        yield site.url
    finally:
        site.__exit__()


def deployed(
    agent: Agent,
    local: NetworkInfo,
    folder: Path,
    model: ModelCanister,
    identity_provider: str | None = None,
) -> str:
    """The address of a canister with the page of a model; `folder` is a scratch project."""
    (folder / "dfx.json").write_text("{}")
    config = {"model_canister": model.id, "host": None, "identity_provider": identity_provider}
    done = install(
        agent,
        target(local),
        Project(folder),
        NAME,
        read_wasm(BUILT / "frontend.wasm.gz"),
        argument=encode([Opt(CONFIG)], [config]),
    )
    return address(target(local), done.canister_id)


def write(page: Any, prompt: str | None = None) -> None:
    """Has the model write, when the page is ready for it; with the prompt that stands there."""
    if prompt is not None:
        page.fill("#prompt", prompt)
    page.get_by_role("button", name="Write", exact=True).click(timeout=SECONDS)


def ended(page: Any, words: str) -> Any:
    """The newest run, once it has ended in these words."""
    run = page.locator("article").first
    run.locator("[data-figures]", has_text=words).wait_for(timeout=SECONDS)
    return run


def ended_job(model: ModelCanister, job: bytes) -> Completion:
    """A job, once it has ended."""
    for _ in range(SECONDS // 100):
        done = model.poll(job)
        if done.finish is not None:
            return done
        time.sleep(0.1)
    raise AssertionError("the job goes on")

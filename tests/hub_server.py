"""A small Hugging Face hub on this machine: models out of folders, and what is pushed to it.

As far as huggingface_hub's own client needs one: repositories, branches, commits, large files by
git-lfs's basic transfer. Set HF_HUB_DISABLE_XET where something is pushed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from loopback_server import LoopbackServer, Quiet

TOKEN = "hf_" + 20 * "x"
READER = "hf_" + 20 * "r"  # may read only
COMMIT = "0123456789abcdef0123456789abcdef01234567"
KINDS = ("models", "spaces")
LARGE = (".safetensors", ".bin", ".gz")

Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Repository:
    """Branches and commits, each a folder."""

    private: bool = False
    folders: dict[str, Path] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    messages: list[str] = field(default_factory=list)


class HubServer(LoopbackServer):
    """Runs while its context lasts. A model is an id and a folder; `gated` ones want TOKEN.

    What is made by clients is in `repositories`: "models/owner/name" or "spaces/owner/name".
    """

    def __init__(self, models: Mapping[str, Path], gated: str = "") -> None:
        self.gated = gated
        self.fetched: list[str] = []
        self.large: dict[str, bytes] = {}
        self.repositories = {
            f"models/{name}": Repository(folders={COMMIT: folder})
            for name, folder in models.items()
        }

    def __enter__(self) -> HubServer:
        hub = self

        class Handler(Quiet, BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(False)

            def do_GET(self) -> None:
                self.answer(True)

            def do_POST(self) -> None:
                self.answer(True)

            def do_PUT(self) -> None:
                self.answer(True)

            def answer(self, whole: bool) -> None:
                path = unquote(urlsplit(self.path).path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                if self.command in ("POST", "PUT"):
                    status, headers, content = hub.take(path, token, body)
                else:
                    status, headers, content = hub.handle(path, token)
                if whole and "/resolve/" in path and status == 200:
                    hub.fetched.append(path.rpartition("/")[2])
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if whole:
                    self.wfile.write(content)

        self.scratch = tempfile.TemporaryDirectory()
        self.serve(Handler)
        return self

    def __exit__(self, *arguments: object) -> None:
        super().__exit__(*arguments)
        self.scratch.cleanup()

    def folder(self, name: str, revision: str = "main") -> Path:
        """The files of "models/owner/name" or "spaces/owner/name"."""
        repository = self.repositories[name]
        return repository.folders[repository.heads.get(revision, revision)]

    # --- Reading

    def handle(self, path: str, token: str) -> Reply:
        name, rest = split(path)
        repository = self.repositories.get(name)
        if repository is None or (repository.private and token not in (TOKEN, READER)):
            return refused(404, "RepoNotFound")
        if name == f"models/{self.gated}" and token != TOKEN:
            return refused(403, "GatedRepo")
        revision = rest[1] if len(rest) > 1 else "main"
        commit = repository.heads.get(revision, revision)
        if commit not in repository.folders:
            return refused(404, "RevisionNotFound")
        folder = repository.folders[commit]
        files = sorted(one for one in folder.rglob("*") if one.is_file())
        if not rest or rest[0] == "revision":
            siblings = [{"rfilename": one.relative_to(folder).as_posix()} for one in files]
            told = {"siblings": siblings, "private": repository.private, "sha": commit}
            return told_json({"id": name.partition("/")[2], **told})
        if rest[0] == "tree":
            return told_json(
                [
                    {
                        "type": "file",
                        "path": file.relative_to(folder).as_posix(),
                        "size": file.stat().st_size,
                        "oid": etag(file),
                    }
                    for file in files
                ]
            )
        file = folder.joinpath(*rest[2:])
        if rest[0] != "resolve" or file not in files:
            return refused(404, "EntryNotFound")
        headers = {"ETag": f'"{etag(file)}"', "X-Repo-Commit": commit}
        return 200, headers, file.read_bytes()

    # --- Writing

    def take(self, path: str, token: str, body: bytes) -> Reply:
        if path == "/api/validate-yaml":
            return told_json({"errors": [], "warnings": []})
        if path.startswith("/large/"):
            self.large[path.removeprefix("/large/")] = body
            return told_json({})
        if token not in (TOKEN, READER):
            return refused(401, "")
        if token == READER:
            return refused(403, "")
        if path == "/api/repos/create":
            return self.make(json.loads(body))
        name, rest = split(path.replace(".git/info/lfs", ""))
        if name not in self.repositories:
            return refused(404, "RepoNotFound")
        repository = self.repositories[name]
        if rest[0] == "branch":
            if rest[1] in repository.heads:
                return refused(409, "")
            repository.heads[rest[1]] = repository.heads["main"]
            return told_json({})
        if rest[0] == "objects":
            return told_json({"objects": [self.place(one) for one in json.loads(body)["objects"]]})
        if rest[1] not in repository.heads:
            return refused(404, "RevisionNotFound")
        if rest[0] == "preupload":
            return told_json({"files": [mode(one) for one in json.loads(body)["files"]]})
        return self.commit(name, repository, rest[1], [json.loads(x) for x in body.splitlines()])

    def make(self, asked: dict[str, Any]) -> Reply:
        name = f"{asked.get('type') or 'model'}s/{asked['organization']}/{asked['name']}"
        shown = name.removeprefix("models/")
        if name in self.repositories:
            status, headers, _ = refused(409, "")
            return status, headers, json.dumps({"url": f"{self.url}/{shown}"}).encode()
        folder = Path(tempfile.mkdtemp(dir=self.scratch.name))
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.repositories[name] = Repository(private, {COMMIT: folder})
        return told_json({"url": f"{self.url}/{shown}"})

    def place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in self.large:
            return wanted
        return {**wanted, "actions": {"upload": {"href": f"{self.url}/large/{wanted['oid']}"}}}

    def commit(
        self, name: str, repository: Repository, branch: str, lines: list[dict[str, Any]]
    ) -> Reply:
        folder = Path(tempfile.mkdtemp(dir=self.scratch.name))
        shutil.copytree(repository.folders[repository.heads[branch]], folder, dirs_exist_ok=True)
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repository.messages.append(value["summary"])
                continue
            file = folder / value["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            whole = line["key"] == "file"
            file.write_bytes(
                base64.b64decode(value["content"]) if whole else self.large[value["oid"]]
            )
        commit = hashlib.sha1(str(folder).encode(), usedforsecurity=False).hexdigest()
        repository.folders[commit] = folder
        repository.heads[branch] = commit
        url = f"{self.url}/{name.removeprefix('models/')}/commit/{commit}"
        return told_json({"commitUrl": url, "commitOid": commit})


def split(path: str) -> tuple[str, list[str]]:
    """The repository of a path, and what follows it."""
    parts = path.removeprefix("/api").strip("/").split("/")
    if parts[0] not in KINDS:
        parts.insert(0, "models")
    return "/".join(parts[:3]), parts[3:]


def mode(file: dict[str, Any]) -> dict[str, Any]:
    large = file["path"].endswith(LARGE)
    how = "lfs" if large else "regular"
    return {"path": file["path"], "uploadMode": how, "shouldIgnore": False}


def told_json(value: Any) -> Reply:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def refused(status: int, code: str) -> Reply:
    return status, {"X-Error-Code": code} if code else {}, b"{}"


def etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()

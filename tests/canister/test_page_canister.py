"""The page's canister serves the built page, and nothing that was changed on the way."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from gateway_kit import Get, Meddler, asked, getter, swapped
from model_kit import ROOT, target

from icgpt.agent import Agent
from icgpt.candid import encode
from icgpt.deploy import read_wasm
from icgpt.network import NetworkInfo
from icgpt.page import Page, deploy_page
from icgpt.principal import to_text
from icgpt.project import Project
from icgpt.replica.gateway import REQUEST, GatewayError

BUILT = ROOT / "canister" / "build"
# Hidden files, such as the stamp of the set-up, are no part of the page.
FILES = sorted(path for path in (BUILT / "page").rglob("[!.]*") if path.is_file())
MODEL = bytes(8) + b"\x07\x01"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    (folder / "dfx.json").write_text("{}")
    return Project(folder)


@pytest.fixture(scope="module")
def bring(agent: Agent, local: NetworkInfo, project: Project) -> Callable[..., Page]:
    """Deploys the built page."""
    wasm = read_wasm(BUILT / "frontend.wasm.gz")

    def run(model_id: bytes = MODEL) -> Page:
        page = deploy_page(agent, target(local), project, "model", model_id, wasm)
        assert page is not None
        return page

    return run


@pytest.fixture(scope="module")
def page(bring: Callable[..., Page]) -> Page:
    return bring()


@pytest.fixture
def get(page: Page, local: NetworkInfo) -> Get:
    return getter(local, page.done.canister_id)


def url(file: Path) -> str:
    return "/" + file.relative_to(BUILT / "page").as_posix()


def test_every_file_is_served_as_it_was_built(get: Get) -> None:
    assert any(url(file) == "/index.html" for file in FILES)
    for file in FILES:
        body = file.read_bytes()
        plain = get(url(file))
        assert (plain.status_code, plain.content) == (200, body), url(file)
        assert "Content-Encoding" not in plain.headers
        packed = get(url(file), Accept_Encoding="gzip")  # which requests unpacks
        assert packed.content == body
        assert plain.headers["ETag"] == f'"{hashlib.sha256(body).hexdigest()[:32]}"'


@pytest.mark.skipif(shutil.which("node") is None, reason="unpacked by Node")
def test_brotli_holds_the_same(get: Get, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    unpack = "process.stdout.write(zlib.brotliDecompressSync(fs.readFileSync(process.argv[1])))"
    script = f"const fs = require('fs'), zlib = require('zlib'); {unpack}"
    for file in FILES:
        answer = get(url(file), stream=True, Accept_Encoding="gzip, deflate, br")
        if answer.headers.get("Content-Encoding") == "br":
            # As sent: requests unpacks it by itself where the package brotli is installed.
            packed.write_bytes(answer.raw.read(decode_content=False))
            node = ["node", "-e", script, str(packed)]
            done = subprocess.run(node, capture_output=True, check=True)
            assert done.stdout == file.read_bytes(), url(file)
    assert get("/", Accept_Encoding="br").headers["Content-Encoding"] == "br"


def test_what_browsers_are_told(get: Get) -> None:
    for file in [*FILES, BUILT / "page" / "config.json"]:
        headers = get(url(file)).headers
        policy = headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "connect-src 'self'"} <= set(policy)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        lasting = url(file).startswith("/assets/")
        assert ("immutable" in headers["Cache-Control"]) == lasting, url(file)
    assert get("/").headers["Content-Type"] == "text/html; charset=utf-8"
    assert get("/").headers["Cache-Control"] == "no-cache"


def test_unknown_paths_are_the_page(get: Get) -> None:
    index = (BUILT / "page" / "index.html").read_bytes()
    for path in ("/", "/chat", "/a/b/?x=1", "/a%20b", "/assetsx", "/../etc/passwd"):
        answer = get(path)
        assert (answer.status_code, answer.content) == (200, index), path
    assert get("/assets/of-an-older-page.js").status_code == 404


def test_head_range_and_what_is_there_already(get: Get) -> None:
    whole = get("/")
    head = get("/", "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.content))
    assert get("/", Range="bytes=0-9").content == whole.content  # a server may send all of it
    again = get("/", If_None_Match=whole.headers["ETag"])
    assert (again.status_code, again.content) == (304, b"")
    assert get("/", If_None_Match='"of an older page"').content == whole.content
    assert get("/", "HEAD", If_None_Match=whole.headers["ETag"]).status_code == 200


def test_the_page_is_told_its_model_and_network(
    get: Get, bring: Callable[..., Page], local: NetworkInfo
) -> None:
    config = get("/config.json").json()
    assert config == {
        "model_canister": to_text(MODEL),
        "network": "local",
        "root_key": local.root_key.hex(),
        "host": None,
        "identity_provider": None,
    }
    assert bring().done.action == "none"
    other = bytes(8) + b"\x08\x01"
    assert bring(other).done.action == "upgrade"
    assert get("/config.json").json()["model_canister"] == to_text(other)
    assert bring().done.action == "upgrade"


def test_what_was_said_is_kept_when_nothing_is_said(
    agent: Agent, page: Page, get: Get
) -> None:
    from icgpt import deploy as room

    wasm = read_wasm(BUILT / "frontend.wasm.gz")
    digest = hashlib.sha256(wasm).digest()
    before = get("/config.json").json()
    room._install(agent, page.done.canister_id, wasm, digest, "upgrade")
    assert get("/config.json").json() == before


def test_what_was_changed_on_the_way_is_refused(
    agent: Agent, local: NetworkInfo, page: Page
) -> None:
    between = Meddler(agent, local)
    canister = page.done.canister_id
    assert between.get(canister).status == 200
    for old, new in (
        (b"<title>", b"<titel>"),
        (b"script-src 'self'", b"script-src * 'self'"[:17]),
        (b"no-cache", b"no-store"),
        (b"tree=:2dn3", b"tree=:2dn4"),
        (b"version=2", b"version=1"),
    ):
        between.change = swapped(old, new)
        with pytest.raises(GatewayError) as refused:
            between.get(canister)
        assert refused.value.status == 503, old
    # One file in another's place, each of them certified.
    config = agent.query(canister, "http_request", encode([REQUEST], [asked("/config.json")]))
    between.change = lambda reply: config
    assert json.loads(between.get(canister, "/config.json").body)["network"] == "local"
    with pytest.raises(GatewayError, match="another path"):
        between.get(canister)

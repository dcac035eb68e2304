"""Canisters' web pages: which canister a request is for, and what of its answers is let through.

The canister here answers what it was told to. Hashes of version 2 are checked against the ones
that the published library of canisters has in its own tests.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
from pathlib import Path
from typing import Any

import cbor2
import pytest
import requests
from replica_kit import Raw, hash_of, leb, root_hash, wasm

from icgpt.candid import BLOB, NAT, TEXT, Opt, Record, decode, encode, field_id
from icgpt.errors import VerificationError
from icgpt.principal import to_text
from icgpt.replica import gateway, http_certification
from icgpt.replica.cel import CelError, parse
from icgpt.replica.gateway import REQUEST, RESPONSE, Gateway
from icgpt.replica.http_certification import HttpRequest, HttpResponse, check_path

# `set` keeps an answer, which both kinds of request get; `piece` gives the rest of a stream.
WAT = r"""
(module
  (import "ic0" "msg_arg_data_size" (func $size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "certified_data_set" (func $certify (param i32 i32)))
  (import "ic0" "data_certificate_size" (func $certificate_size (result i32)))
  (import "ic0" "data_certificate_copy" (func $certificate_copy (param i32 i32 i32)))
  (memory 4)
  (func $keep (param $at i32)
    (i32.store (local.get $at) (call $size))
    (call $copy (i32.add (local.get $at) (i32.const 4)) (i32.const 0) (call $size))
    (call $reply))
  (func $give (param $at i32)
    (call $append (i32.add (local.get $at) (i32.const 4)) (i32.load (local.get $at)))
    (call $reply))
  (func (export "canister_update set") (call $keep (i32.const 0)))
  (func (export "canister_update set_update") (call $keep (i32.const 65536)))
  (func (export "canister_update set_piece") (call $keep (i32.const 131072)))
  (func (export "canister_query http_request") (call $give (i32.const 0)))
  (func (export "canister_update http_request_update") (call $give (i32.const 65536)))
  (func (export "canister_query piece") (call $give (i32.const 131072)))
  (func (export "canister_update certify")
    (call $copy (i32.const 196608) (i32.const 0) (call $size))
    (call $certify (i32.const 196608) (call $size)) (call $reply))
  (func (export "canister_query certificate")
    (call $certificate_copy (i32.const 196608) (i32.const 0) (call $certificate_size))
    (call $append (i32.const 196608) (call $certificate_size)) (call $reply)))
"""
EXPRESSION = (
    "default_certification(ValidationArgs{certification:Certification{"
    "no_request_certification:Empty{},response_certification:ResponseCertification{"
    'certified_response_headers:ResponseHeaderList{headers:["content-type"]}}}})'
)
# A response without a callback, which our encoder knows nothing of.
PLAIN = Record({str(key): kind for _, key, kind in RESPONSE.fields if key != "streaming_strategy"})
SKIPPED = "default_certification(ValidationArgs{no_certification:Empty{}})"


def tree_of(content: Any) -> list[Any]:
    if isinstance(content, bytes):
        return [3, content]
    nodes = [[2, label, tree_of(content[label])] for label in sorted(content)]
    while len(nodes) > 1:
        nodes = (
            [[1, nodes[0], nodes[1]], *nodes[2:]]
            if len(nodes) == 2
            else [[1, nodes[0], [1, *nodes[1:3]] if len(nodes) == 3 else nodes[1]]]
        )
    return nodes[0] if nodes else [0]


def encoded(data: bytes) -> str:
    return ":" + base64.b64encode(data).decode() + ":"


class Site:
    """A canister with one page."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.id = raw.new(wasm(WAT))
        self.headers: list[tuple[str, str]] = []

    def answer(self, body: bytes = b"hello", status: int = 200, **more: Any) -> dict[str, Any]:
        headers = [{0: key, 1: value} for key, value in self.headers]
        return {"status_code": status, "headers": headers, "body": body, **more}

    def put(self, method: str = "set", **answer: Any) -> None:
        self.raw.update(self.id, method, encode([PLAIN], [self.answer(**answer)]))

    def certify(self, tree: list[Any], **more: str) -> None:
        """Certify a tree and add the header that shows it."""
        self.raw.update(self.id, "certify", root_hash(tree))
        certificate = self.raw.query(self.id, "certificate")
        parts = {"certificate": encoded(certificate), "tree": encoded(cbor2.dumps(tree)), **more}
        value = ", ".join(f"{key}={part}" for key, part in parts.items())
        self.headers.append(("IC-Certificate", value))

    def get(self, path: str = "/", host: str = "", **more: Any) -> requests.Response:
        port = self.raw.url.rpartition(":")[2]
        headers = {"Host": (host or f"{to_text(self.id)}.localhost") + f":{port}"}
        headers |= more.pop("headers", {})
        method = more.pop("method", "GET")
        return self.raw.http.request(
            method, self.raw.url + path, headers=headers, timeout=60, **more
        )


@pytest.fixture
def site(raw: Raw) -> Site:
    return Site(raw)


def version_1(site: Site, path: bytes = b"/", body: bytes = b"hello") -> None:
    site.certify(tree_of({b"http_assets": {path: hashlib.sha256(body).digest()}}))


def response_hash(status: int, body: bytes, headers: dict[str, str]) -> bytes:
    """As the specification words it, with the kit's hashing of maps."""
    kept = {key.lower(): value for key, value in headers.items()}
    head = hash_of({**kept, ":ic-cert-status": status})
    return hashlib.sha256(head + hashlib.sha256(body).digest()).digest()


def version_2(
    site: Site,
    path: list[str],
    body: bytes = b"hello",
    expression: str = EXPRESSION,
    others: dict[bytes, Any] | None = None,
) -> None:
    site.headers += [("IC-CertificateExpression", expression), ("Content-Type", "text/plain")]
    headers = {"ic-certificateexpression": expression, "content-type": "text/plain"}
    leaf: Any = {b"": {response_hash(200, body, headers): b""}}
    if expression == SKIPPED:
        leaf = b""
    content: Any = {hashlib.sha256(expression.encode()).digest(): leaf}
    for label in reversed(path[1:]):
        content = {label.encode(): content}
    content = {path[0].encode(): content | (others or {})}
    site.certify(tree_of(content), version="2", expr_path=encoded(cbor2.dumps(path)))


def test_version_1(site: Site) -> None:
    version_1(site)
    site.headers += [("Content-Type", "text/plain"), ("X-Of-Its-Own", "1")]
    site.put()
    response = site.get()
    assert (response.status_code, response.content) == (200, b"hello")
    assert response.headers["Content-Type"] == "text/plain"
    assert response.headers["X-Of-Its-Own"] == "1"
    assert response.headers["x-ic-canister-id"] == to_text(site.id)
    assert site.get("/other").status_code == 503
    site.put(body=b"tampered")
    response = site.get()
    assert response.status_code == 503
    assert "the body is not the certified one" in response.text
    # Below the raw name anything goes.
    raw = site.get(host=f"{to_text(site.id)}.raw.localhost")
    assert (raw.status_code, raw.content) == (200, b"tampered")


def test_version_1_falls_back_to_the_index_and_looks_into_gzip(site: Site) -> None:
    version_1(site, b"/index.html")
    site.headers.append(("Content-Encoding", "gzip"))
    site.put(body=gzip.compress(b"hello"))
    response = site.get("/any/where?x=1")
    assert (response.status_code, response.content) == (200, b"hello")
    site.put(body=b"no gzip")
    assert site.get().status_code == 503


def test_uncertified_and_stale_answers(site: Site) -> None:
    site.put()
    assert "no certificate" in site.get().text
    version_1(site)
    site.raw.update(site.id, "certify", bytes(32))
    good = dict(site.headers)["IC-Certificate"]
    for bad in (
        good.replace("certificate=:", "certificate=:AAAA"),
        good.replace("tree=:", "tree=:AA"),
        good.replace("tree=:", "tree=:!"),
        "certificate=::",
        "version=7, " + good,
        "",
    ):
        site.headers = [("IC-Certificate", bad)]
        site.put()
        assert site.get().status_code == 503, bad
    site.headers = [("IC-Certificate", good)]
    site.put()
    assert site.get().status_code == 200  # whatever has been certified since


def test_version_2(site: Site) -> None:
    version_2(site, ["http_expr", "page", "<$>"])
    site.headers.append(("X-Nobody-Vouches", "1"))
    site.put()
    response = site.get("/page")
    assert (response.status_code, response.content) == (200, b"hello")
    assert response.headers["Content-Type"] == "text/plain"
    assert "X-Nobody-Vouches" not in response.headers
    assert "another path" in site.get("/page/").text
    assert "another path" in site.get("/").text
    site.put(status=404)
    assert "not one that the canister has certified" in site.get("/page").text
    site.put(body=b"tampered")
    assert site.get("/page").status_code == 503
    site.headers = [(k, v) for k, v in site.headers if k != "IC-CertificateExpression"]
    site.put()
    assert "no certificate expression" in site.get("/page").text


def test_paths_are_certified_as_they_read(site: Site) -> None:
    version_2(site, ["http_expr", "a page", "<$>"])
    site.put()
    assert site.get("/a%20page").content == b"hello"
    assert "another path" in site.get("/a%2520page").text
    assert "no text" in site.get("/a%ffpage").text


def test_version_2_without_certification(site: Site) -> None:
    version_2(site, ["http_expr", "<*>"], expression=SKIPPED)
    site.put(body=b"anything")
    assert site.get("/any/where").content == b"anything"


def test_a_closer_path_must_be_used(site: Site) -> None:
    version_2(site, ["http_expr", "<*>"], others={b"a": {b"<*>": b""}})
    site.put()
    assert site.get("/b/c").status_code == 200
    assert "closer paths" in site.get("/a/c").text


@pytest.mark.parametrize(
    ("path", "requested", "others", "fits"),
    [
        (["http_expr", "a", "<$>"], "/a", {}, True),
        (["http_expr", "a", "<$>"], "/a/", {}, False),
        (["http_expr", "a", "", "<$>"], "/a/", {}, True),
        (["http_expr", "", "<$>"], "/", {}, True),
        (["http_expr", "<*>"], "/", {}, True),
        (["http_expr", "<*>"], "/", {"": {"<$>": {}}}, False),
        (["http_expr", "a", "<*>"], "/a/b/c", {}, True),
        (["http_expr", "a", "", "<*>"], "/a/b/c", {}, True),
        (["http_expr", "a", "<*>"], "/a/b/c", {"b": {"<*>": {}}}, False),
        (["http_expr", "a", "<*>"], "/a/b/c", {"b": {"c": {"<$>": {}}}}, False),
        (["http_expr", "a", "<*>"], "/a/b/c", {"": {"<*>": {}}}, False),
        (["http_expr", "a", "<*>"], "/b", {}, False),
        (["other", "<*>"], "/b", {}, False),
        (["http_expr", "a"], "/a", {}, False),
        (["http_expr"], "/a", {}, False),
    ],
)
def test_paths(path: list[str], requested: str, others: dict[str, Any], fits: bool) -> None:
    def labelled(content: dict[str, Any]) -> dict[bytes, Any]:
        return {key.encode(): labelled(value) for key, value in content.items()}

    content: dict[bytes, Any] = {}
    inner = content
    for label in path[:-1]:
        inner = inner.setdefault(label.encode(), {})
    inner[path[-1].encode()] = {}
    inner |= labelled(others)
    tree = tree_of(content)
    labels = [label.encode() for label in path]
    if fits:
        check_path(labels, requested, tree)
    else:
        with pytest.raises(VerificationError):
            check_path(labels, requested, tree)


def test_published_hashes() -> None:
    """From the tests of the library that canisters use to certify their responses."""
    body = b"Hello World!"
    expression = EXPRESSION.replace('"content-type"', '"Accept-Encoding","Cache-Control"')
    headers = (
        ("ic-certificateexpression", expression),
        ("accept-encoding", "gzip"),
        ("cache-control", "no-cache"),
        ("cache-control", "no-store"),
    )
    response = HttpResponse(200, headers, body)
    digest = http_certification.hash_response(response, headers)
    assert digest.hex() == "3393250e3cedc30408dcb7e8963898c3d7549b8a0b76496b82fdfeae99c2ac78"
    request = HttpRequest(
        "POST",
        "/",
        "q=hello+world&name=foo&name=bar&color=purple",
        (("Accept-Language", "en"), ("Accept-Language", "en-US"), ("Host", "https://ic0.app")),
        bytes(range(7)),
    )
    wanted = (frozenset({"host"}), frozenset({"q", "name"}))
    digest = http_certification.hash_request(request, *wanted)
    assert digest.hex() == "3ade1c9054f05bc8bcebd3fd7b884078a6e67c63e5ac4a639fa46a47f5a955c9"
    bare = HttpRequest("POST", "/", "", request.headers, request.body)
    digest = http_certification.hash_request(bare, frozenset({"host"}), frozenset())
    assert digest.hex() == "10796453466efb3e333891136b8a5931269f77e40ead9d437fcee94a02fa833c"


def test_hosts(site: Site) -> None:
    site.put()
    text = to_text(site.id)
    for host, path in (
        ("localhost", f"/?canisterId={text}"),
        ("127.0.0.1", f"/page?x=1&canisterId={text}"),
        (f"{text}.localhost", "/"),
        (f"{text}.127.0.0.1", "/"),
    ):
        assert "no certificate" in site.get(path, host).text, (host, path)
    referer = {"Referer": f"http://localhost/?canisterId={text}"}
    assert "no certificate" in site.get("/style.css", "localhost", headers=referer).text
    assert site.get("/nothing", "localhost").status_code == 404
    assert site.get("/", "nonsense.localhost").status_code == 400
    assert site.get("/?canisterId=nonsense", "localhost").status_code == 400
    unknown = to_text(bytes(8) + b"\x01\x01")
    assert site.get("/", f"{unknown}.localhost").status_code == 404
    # The network's own interface is below any name, and no canister stands in for it.
    assert site.get("/api/v2/status").status_code == 200
    assert site.get("/api/v2/other").status_code == 404
    assert site.get("/_/other").status_code == 404


def test_names_of_a_file(tmp_path: Path, raw: Raw, site: Site) -> None:
    class Http:
        query_string = ""
        headers: dict[str, str] = {}  # noqa: RUF012 - a stand-in

        def __init__(self, host: str) -> None:
            self.host = host

    names = tmp_path / "custom-domains.txt"

    async def nothing(_: Any) -> bytes:
        return b""

    gate = Gateway(raw.root_key, nothing, nothing, ("example.test",), names)
    text = to_text(site.id)
    http: Any = Http("model.local.localhost:8000")
    with pytest.raises(gateway.GatewayError):
        gate.canister_of(http)
    names.write_text(f"model.local.localhost:{text}\n")
    assert gate.canister_of(http) == (site.id, False)
    other: Any = Http(f"{text}.example.test")
    assert gate.canister_of(other) == (site.id, False)


def test_updates(site: Site) -> None:
    site.put(upgrade=True)
    site.put("set_update", body=b"from an update", status=201)
    response = site.get("/form", method="POST", data=b"x" * 1_000)
    assert (response.status_code, response.content) == (201, b"from an update")


def streamed(canister: bytes, body: bytes, token: tuple[str, int]) -> bytes:
    """A response with a callback, byte by byte: our encoder has no functions."""

    def record(opcode: int, **fields: int) -> bytes:
        pairs = sorted((field_id(name.strip("_")), kind) for name, kind in fields.items())
        head = bytes([opcode, len(pairs)])
        return head + b"".join(leb(number) + bytes([kind & 0x7F]) for number, kind in pairs)

    text, nat, nat16 = -15, -3, -6
    table = [
        bytes([0x6C, 2, 0, text & 0x7F, 1, text & 0x7F]),  # 0: a header
        bytes([0x6D, 0]),
        bytes([0x6D, 0x7B]),  # 2: a blob
        bytes([0x6A, 0, 0, 1, 1]),  # 3: a query method
        record(0x6C, key=text, index=nat),
        record(0x6C, callback=3, token=4),
        record(0x6B, Callback=5),
        bytes([0x6E, 6]),
        record(0x6C, status_code=nat16, headers=1, body=2, streaming_strategy=7),
    ]

    def fields(**values: bytes) -> bytes:
        return b"".join(values[name] for name in sorted(values, key=field_id))

    key, index = token
    strategy = fields(
        callback=b"\x01\x01" + leb(len(canister)) + canister + b"\x05piece",
        token=fields(key=leb(len(key)) + key.encode(), index=leb(index)),
    )
    data = fields(
        status_code=(200).to_bytes(2, "little"),
        headers=b"\x00",
        body=leb(len(body)) + body,
        streaming_strategy=b"\x01\x00" + strategy,  # there, and the first variant
    )
    return b"DIDL" + bytes([len(table)]) + b"".join(table) + b"\x01\x08" + data


def test_tokens_of_any_type() -> None:
    token = Record({"key": TEXT, "index": NAT})
    kept = decode(streamed(b"x", b"", ("k", 7)), [RESPONSE])[0]["streaming_strategy"]["Callback"]
    assert kept["callback"] == (b"x", "piece")
    assert decode(kept["token"], [token]) == [{"key": "k", "index": 7}]


def test_streams(site: Site) -> None:
    """The further pieces are asked for with the token, of whatever type, as it came."""
    host = f"{to_text(site.id)}.raw.localhost"
    site.raw.update(site.id, "set", streamed(site.id, b"first ", ("k", 7)))
    piece = Record({"body": BLOB, "token": Opt(TEXT)})
    site.raw.update(site.id, "set_piece", encode([piece], [{"body": b"last", "token": None}]))
    response = site.get("/", host)
    assert (response.status_code, response.content) == (200, b"first last")
    # A canister that never comes to an end, and one that sends elsewhere.
    endless = {"body": b"", "token": "more"}
    site.raw.update(site.id, "set_piece", encode([piece], [endless]))
    assert site.get("/", host).status_code == 502
    site.raw.update(site.id, "set", streamed(site.raw.sender, b"first ", ("k", 7)))
    assert "at another canister" in site.get("/", host).text


class Ranges:
    """Stands in for a canister whose pages come in ranges of three bytes."""

    def __init__(self, body: bytes = b"abcdefgh", **headers: str) -> None:
        self.body = body
        self.headers = headers
        self.asked: list[str] = []

    async def query(self, request: Any) -> bytes:
        (value,) = decode(request.arg, [REQUEST])
        asked = {pair[0]: pair[1] for pair in value["headers"]}.get("range", "bytes=0-")
        self.asked.append(asked)
        start = int(asked[6:-1])
        part = self.body[start : start + 3]
        headers = {
            "content-range": f"bytes {start}-{start + len(part) - 1}/{len(self.body)}",
            "etag": "one",
            **self.headers,
        }
        pairs = [{0: key, 1: text} for key, text in headers.items()]
        return encode([PLAIN], [{"status_code": 206, "headers": pairs, "body": part}])

    def whole(self, *headers: tuple[str, str]) -> HttpResponse:
        gate = Gateway(b"", self.query, self.query)
        request = HttpRequest("GET", "/", "", headers)
        return asyncio.run(gate._whole(request, bytes(10), True))


def test_ranges_that_nobody_asked_for_are_put_together() -> None:
    canister = Ranges()
    response = canister.whole()
    assert (response.status, response.body) == (200, b"abcdefgh")
    assert response.header("content-range") is None
    assert canister.asked == ["bytes=0-", "bytes=3-", "bytes=6-"]
    # Whoever asks for a range gets that one.
    response = Ranges().whole(("range", "bytes=3-"))
    assert (response.status, response.body) == (206, b"def")


@pytest.mark.parametrize(
    "value", ["", "bytes 0-2", "bytes 3-5/8", "bytes 0-9/8", "bytes 0-2/99999999999"]
)
def test_ranges_that_do_not_fit_together(value: str) -> None:
    with pytest.raises(gateway.GatewayError):
        Ranges(**{"content-range": value}).whole()


def test_canisters_without_pages(site: Site, canister: bytes) -> None:
    response = site.get("/", f"{to_text(canister)}.localhost")
    assert response.status_code == 404
    assert "http_request" in response.text
    site.raw.update(site.id, "set", b"rubbish")
    assert "does not speak HTTP" in site.get().text
    empty = site.raw.create()
    assert site.get("/", f"{to_text(empty)}.localhost").status_code == 404


def test_what_the_canister_is_told(site: Site) -> None:
    """The arguments' type is the one that canisters are compiled with."""
    value = {"method": "GET", "url": "/", "headers": [], "body": b"", "certificate_version": 2}
    assert decode(encode([REQUEST], [value]), [REQUEST]) == [value]


@pytest.mark.parametrize(
    "text",
    ["", "f(", "f{a}", 'f("', "f(]", "[1]", "f(){}", "x", "f{a:[],a:[]}", "f(" * 50, "[" * 50],
)
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(CelError):
        parse(text)


def test_odd_expressions(site: Site) -> None:
    for expression in (
        "nonsense",
        "other(ValidationArgs{})",
        "default_certification(ValidationArgs{})",
        "default_certification(ValidationArgs{no_certification:Empty{},certification:C{}})",
        EXPRESSION.replace('["content-type"]', "[[]]"),
    ):
        site.headers = []
        version_2(site, ["http_expr", "<*>"], expression=expression)
        site.put()
        assert "malformed certificate expression" in site.get().text

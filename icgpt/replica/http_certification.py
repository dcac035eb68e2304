"""Whether a canister's HTTP response is what the canister has certified.

Version 1 certifies bodies by path; version 2 also status, headers and, if the canister wants, the
request, under an expression that says what of them counts. Both hang on the canister's certified
data, which the network's certificate shows.
See https://internetcomputer.org/docs/references/http-gateway-protocol-spec#response-verification.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from icgpt import certificate
from icgpt.candid import unsigned_leb128
from icgpt.errors import VerificationError
from icgpt.replica.cel import CelError, Node, parse

MAX_BODY = 64 << 20  # of what a compressed body holds
Headers = tuple[tuple[str, str], ...]
_EXACT, _WILDCARD = b"<$>", b"<*>"
_CERTIFICATE, _EXPRESSION = "ic-certificate", "ic-certificateexpression"
_FIELD = re.compile(r"(\w+)=(?::([A-Za-z0-9+/=]*):|([0-9]+))")


@dataclass(frozen=True)
class HttpRequest:
    """A request; `path` as it was sent, without the query."""

    method: str
    path: str
    query: str = ""
    headers: Headers = ()
    body: bytes = b""

    def decoded_path(self) -> str:
        """Return the path as canisters certify it: a space for `%20`."""
        try:
            return unquote(self.path, errors="strict")
        except UnicodeDecodeError as error:
            raise VerificationError("the path is no text") from error


@dataclass(frozen=True)
class HttpResponse:
    """A canister's response."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first header of a name, in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)


@dataclass(frozen=True)
class _Proof:
    """What the certificate header holds, its certificate checked."""

    tree: certificate.Tree
    version: int
    path: list[bytes]


def verify(
    request: HttpRequest, response: HttpResponse, canister: bytes, root_key: bytes
) -> HttpResponse:
    """Return the response, without the headers that nobody vouches for.

    Raises VerificationError unless the canister has certified it.
    """
    header = response.header(_CERTIFICATE)
    if header is None:
        raise VerificationError("the response has no certificate")
    proof = _read(header, canister, root_key)
    if proof.version == 1:
        _verify_body(request, response, proof.tree)
        return response
    if proof.version == 2:
        return _verify_response(request, response, proof)
    raise VerificationError(f"certification of version {proof.version} is not known")


def _read(header: str, canister: bytes, root_key: bytes) -> _Proof:
    parts = {name: (encoded, number) for name, encoded, number in _FIELD.findall(header)}

    def decoded(name: str) -> bytes:
        try:
            return base64.b64decode(parts[name][0], validate=True)
        except (KeyError, binascii.Error) as error:
            raise VerificationError(f"the certificate header has no valid {name}") from error

    version = int(parts.get("version", ("", "1"))[1] or 1)
    tree = certificate.decode_cbor(decoded("tree"), "the tree")
    digest = certificate.root_hash(tree)
    shown = certificate.parse(decoded("certificate"), root_key, canister)
    if shown.lookup(b"canister", canister, b"certified_data") != digest:
        raise VerificationError("the tree is not what the canister has certified")
    path: list[bytes] = []
    if version == 2:
        labels = certificate.decode_cbor(decoded("expr_path"), "the path")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise VerificationError("the expression's path is no list of texts")
        path = [label.encode() for label in labels]
    return _Proof(tree, version, path)


# --- version 1


def _verify_body(request: HttpRequest, response: HttpResponse, tree: certificate.Tree) -> None:
    """Check the body alone, by path, or else as the page for unknown paths."""
    leaf = None
    for path in (request.decoded_path(), "/index.html"):
        try:
            leaf = certificate.find(tree, [b"http_assets", path.encode()])
        except certificate.PrunedError:
            leaf = None
        if leaf is not None:
            break
    wanted = leaf[1] if leaf is not None and leaf[0] == certificate.LEAF else None
    bodies = [_decompressed(response), response.body]
    if wanted is None or wanted not in [hashlib.sha256(body).digest() for body in bodies]:
        raise VerificationError("the body is not the certified one")


def _decompressed(response: HttpResponse) -> bytes:
    encoding = (response.header("content-encoding") or "identity").lower()
    try:
        if encoding == "gzip":
            reader = zlib.decompressobj(wbits=31)
        elif encoding == "deflate":
            reader = zlib.decompressobj()
        else:
            return response.body
        body = reader.decompress(response.body, MAX_BODY)
    except zlib.error as error:
        raise VerificationError(f"the body is no {encoding}: {error}") from error
    if reader.unconsumed_tail:
        raise VerificationError(f"the body holds more than {MAX_BODY} bytes")
    return body


# --- version 2


def _verify_response(request: HttpRequest, response: HttpResponse, proof: _Proof) -> HttpResponse:
    expression = response.header(_EXPRESSION)
    if expression is None:
        raise VerificationError("the response has no certificate expression")
    check_path(proof.path, request.decoded_path(), proof.tree)
    try:
        certification = _certification(parse(expression))
    except CelError as error:
        raise VerificationError(f"malformed certificate expression: {error}") from error
    here = [*proof.path, hashlib.sha256(expression.encode()).digest()]
    if not _exists(proof.tree, here):
        raise VerificationError("the certificate expression is not a certified one")
    if certification is None:
        return response
    wanted, given = certification
    request_hash = b"" if wanted is None else hash_request(request, *wanted)
    kept = _filtered(response, *given)
    leaf = [*here, request_hash, hash_response(response, kept)]
    try:
        found = certificate.find(proof.tree, leaf)
    except certificate.PrunedError:
        found = None
    if found != [certificate.LEAF, b""]:
        raise VerificationError("the response is not one that the canister has certified")
    certificates = [pair for pair in response.headers if pair[0].lower() == _CERTIFICATE]
    return replace(response, headers=(*kept, *certificates))


def _exists(tree: certificate.Tree, path: list[bytes]) -> bool:
    """Tell whether a path is in the tree; what is left out is not."""
    try:
        return certificate.find(tree, path) is not None
    except certificate.PrunedError:
        return False


def _might_exist(tree: certificate.Tree, path: list[bytes]) -> bool:
    """Tell whether a path is not proven to be absent."""
    try:
        return certificate.find(tree, path) is not None
    except certificate.PrunedError:
        return True


def check_path(path: list[bytes], requested: str, tree: certificate.Tree) -> None:
    """Check that the path fits the request, and that the tree has none that fits it better."""
    if path[:1] != [b"http_expr"] or path[-1] not in (_EXACT, _WILDCARD):
        raise VerificationError("the expression's path has a wrong beginning or end")
    parts = [part.encode() for part in requested.split("/") if part]
    if requested.endswith("/"):
        parts.append(b"")  # a folder is not the file of the same name
    exact = [b"http_expr", *parts, _EXACT]
    if path[-1] == _EXACT:
        if path != exact or not _exists(tree, exact):
            raise VerificationError("the certificate is for another path")
        return
    if _might_exist(tree, exact):
        raise VerificationError("there may be a certificate for just this path")
    prefix = path[1:-1]
    bare = prefix[:-1] if prefix[-1:] == [b""] else prefix
    if parts[: len(bare)] != bare:
        raise VerificationError("the certificate is for other paths")
    for better in _closer(parts, prefix):
        if _might_exist(tree, [b"http_expr", *better, _WILDCARD]):
            raise VerificationError("there may be a certificate for closer paths")
    if not _exists(tree, path):
        raise VerificationError("the tree has no such path")


def _closer(parts: list[bytes], prefix: list[bytes]) -> Iterator[list[bytes]]:
    """Give the wildcard paths that fit a request better than a prefix does, longest first.

    Each part is dropped in two steps: `a/b`, then the folder `a/`, then `a`.
    """
    parts = list(parts)
    while len(parts) > len(prefix) or parts[-1:] != prefix[-1:]:
        yield list(parts)
        if not parts:
            return
        if parts.pop() != b"":
            parts.append(b"")


_Names = frozenset[str]


def _certification(
    expression: Any,
) -> tuple[tuple[_Names, _Names] | None, tuple[bool, _Names]] | None:
    """Return what of request and response is certified; None where nothing is.

    Of the request: headers and query parameters. Of the response: whether the headers named are
    those that count, or those that don't.
    """
    match expression:
        case Node("default_certification", (Node("ValidationArgs", _, fields),)):
            pass
        case _:
            raise CelError("no default certification")
    if "no_certification" in fields:
        if len(fields) != 1:
            raise CelError("certified and not certified at once")
        return None
    certified = _field(fields, "certification", "Certification")
    wanted = None
    if "no_request_certification" not in certified:
        requested = _field(certified, "request_certification", "RequestCertification")
        wanted = (
            _names(requested.get("certified_request_headers")),
            _names(requested.get("certified_query_parameters")),
        )
    given = _field(certified, "response_certification", "ResponseCertification")
    if "certified_response_headers" in given:
        listed = _field(given, "certified_response_headers", "ResponseHeaderList")
        return wanted, (True, _names(listed.get("headers")))
    listed = _field(given, "response_header_exclusions", "ResponseHeaderList")
    return wanted, (False, _names(listed.get("headers")))


def _field(fields: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    node = fields.get(key)
    if not isinstance(node, Node) or node.name != name:
        raise CelError(f"{key} has to be a {name}")
    return node.fields


def _names(value: Any) -> _Names:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise CelError("a list of names is expected")
    return frozenset(item.lower() for item in value)


def _filtered(response: HttpResponse, including: bool, names: _Names) -> Headers:
    return tuple(
        (key.lower(), value)
        for key, value in response.headers
        if key.lower() == _EXPRESSION
        or (key.lower() != _CERTIFICATE and (key.lower() in names) == including)
    )


def _hash(value: str | bytes) -> bytes:
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).digest()


def _hash_pairs(pairs: Iterable[tuple[str, bytes]]) -> bytes:
    """Hash named hashes as a map is hashed in which a name may stand more than once."""
    return _hash(b"".join(sorted(_hash(name) + digest for name, digest in pairs)))


def hash_response(response: HttpResponse, headers: Headers) -> bytes:
    """Return the hash that stands for a response with these of its headers."""
    pairs = [(key, _hash(value)) for key, value in headers]
    pairs.append((":ic-cert-status", _hash(unsigned_leb128(response.status))))
    return _hash(_hash_pairs(pairs) + _hash(response.body))


def hash_request(request: HttpRequest, headers: _Names, parameters: _Names) -> bytes:
    """Return the hash that stands for a request, of which these headers and parameters count."""
    pairs = [
        (key.lower(), _hash(value)) for key, value in request.headers if key.lower() in headers
    ]
    pairs.append((":ic-cert-method", _hash(request.method)))
    fragments = request.query.split("&") if request.query else []
    kept = [part for part in fragments if part.split("=")[0].lower() in parameters]
    if kept:
        pairs.append((":ic-cert-query", _hash("&".join(kept))))
    return _hash(_hash_pairs(pairs) + _hash(request.body))

"""From the bytes of an upload to a module that may run: inflate, check, meter.

The checks are the platform's: sizes, imports from `ic0` alone and with the right types, export
names, no threads, no relaxed SIMD, one 32-bit memory. What they let through is then validated by
wasmtime and rewritten by `metering`. Every refusal is an `InvalidModule` with the reason.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

from icgpt.replica import ic0, metering, wasm
from icgpt.replica.engine import validate
from icgpt.replica.wasm import FunctionType, InvalidModule
from icgpt.replica.weights import Release

MAX_MODULE = 100 << 20
MAX_CODE = 10 << 20
MAX_FUNCTIONS = 50_000
MAX_GLOBALS = 1_000
MAX_METHODS = 1_000
MAX_CUSTOM_SECTIONS = 16
MAX_CUSTOM_BYTES = 1 << 20

_GZIP = b"\x1f\x8b"
_METHODS = ("canister_update ", "canister_query ", "canister_composite_query ")
_ENTRY_POINTS = frozenset(
    (
        "canister_init",
        "canister_pre_upgrade",
        "canister_post_upgrade",
        "canister_inspect_message",
        "canister_heartbeat",
        "canister_global_timer",
        "canister_on_low_wasm_memory",
    )
)
_RESERVED = frozenset(("canister counter_instructions", "canister_start", "stable_memory"))
_PLAIN = FunctionType((), ())


@dataclass(frozen=True)
class Prepared:
    """A module that has passed all checks, with the counting built in."""

    hash: bytes  # SHA-256 of the upload, compressed or not
    metered: metering.Metered
    exports: frozenset[str]  # functions by their exported names
    metadata: dict[str, bytes]
    private_metadata: dict[str, bytes]
    has_start: bool


def prepare(upload: bytes, release: Release) -> Prepared:
    """Check and meter a module; raises `InvalidModule`."""
    code = _inflate(upload)
    sections = wasm.parse(code)
    _check_sizes(sections)
    _check_imports(sections)
    exports = _check_exports(sections, release.limits.method_names)
    public, private = _custom_sections(sections)
    validate(code)
    metered = metering.instrument(sections, release)
    return Prepared(
        hashlib.sha256(upload).digest(),
        metered,
        exports,
        public,
        private,
        sections.start is not None,
    )


def _inflate(upload: bytes) -> bytes:
    if len(upload) > MAX_MODULE:
        raise InvalidModule(f"the module has {len(upload)} bytes, more than {MAX_MODULE}")
    if upload[:2] != _GZIP:
        return upload
    inflater = zlib.decompressobj(wbits=31)
    try:
        code = inflater.decompress(upload, MAX_MODULE + 1)
    except zlib.error as error:
        raise InvalidModule(f"the gzip stream is damaged ({error})") from None
    if len(code) > MAX_MODULE:
        raise InvalidModule(f"the module has more than {MAX_MODULE} bytes when inflated")
    if not inflater.eof:
        raise InvalidModule("the gzip stream is truncated")
    return code


def _check_sizes(sections: wasm.Sections) -> None:
    for what, size, most in (
        ("code section (bytes)", sections.code_size, MAX_CODE),
        ("functions", len(sections.functions), MAX_FUNCTIONS),
        ("globals", len(sections.globals), MAX_GLOBALS),
        ("memories", sections.memories, 1),
    ):
        if size > most:
            raise InvalidModule(f"{what}: {size}, and {most} are allowed")
    for item in sections.globals:
        if item.type not in wasm.VALUE_NAMES:
            raise InvalidModule("globals that hold references are not supported")


def _check_imports(sections: wasm.Sections) -> None:
    for item in sections.imports:
        signature = ic0.SIGNATURES.get(item.name)
        if item.module != "ic0" or signature is None:
            raise InvalidModule(f"it imports {item.module}.{item.name}, which does not exist here")
        if item.type >= len(sections.types) or sections.types[item.type] != signature.type:
            raise InvalidModule(f"its import ic0.{item.name} should be of type {signature.type}")


def _check_exports(sections: wasm.Sections, most: int) -> frozenset[str]:
    functions: set[str] = set()
    methods: set[str] = set()
    for export in sections.exports:
        if export.name in _RESERVED or export.name.startswith(metering.PREFIX):
            raise InvalidModule(f"the export name '{export.name}' is reserved")
        if export.kind != 0:
            continue
        prefix = next((p for p in _METHODS if export.name.startswith(p)), None)
        if prefix is not None:
            name = export.name[len(prefix) :]
            if name in methods:
                raise InvalidModule(f"method '{name}' is exported more than once")
            methods.add(name)
        elif export.name.startswith("canister_") and export.name not in _ENTRY_POINTS:
            raise InvalidModule(f"'{export.name}' is no entry point, but starts with canister_")
        if prefix is not None or export.name in _ENTRY_POINTS:
            kind = sections.function_type(export.index)
            if kind != _PLAIN:
                raise InvalidModule(f"'{export.name}' should be of type {_PLAIN}, not {kind}")
        functions.add(export.name)
    if len(methods) > MAX_METHODS:
        raise InvalidModule(f"it exports {len(methods)} methods, and {MAX_METHODS} are allowed")
    size = sum(len(name.encode()) for name in methods)
    if size > most:
        raise InvalidModule(f"its method names have {size} bytes, and {most} are allowed")
    return frozenset(functions)


def _custom_sections(sections: wasm.Sections) -> tuple[dict[str, bytes], dict[str, bytes]]:
    public: dict[str, bytes] = {}
    private: dict[str, bytes] = {}
    size = 0
    for title, content in sections.custom:
        if not title.startswith("icp:"):
            continue
        scope, space, name = title[4:].partition(" ")
        if scope not in ("public", "private") or not space:
            raise InvalidModule(
                f"custom section '{title}' is neither 'icp:public NAME' nor private"
            )
        if name in public or name in private:
            raise InvalidModule(f"custom section '{name}' appears twice")
        (public if scope == "public" else private)[name] = content
        size += len(content) + len(name)
    if len(public) + len(private) > MAX_CUSTOM_SECTIONS or size > MAX_CUSTOM_BYTES:
        raise InvalidModule("its custom sections are too many or too large")
    return public, private

"""Reading and writing the Wasm binary format, as far as metering and validation need it.

`Reader` walks bytes that a stranger sent: every read is checked against the end, every number
against its width, and each loop consumes input, so hostile bytes end in `InvalidModule`, never in
an endless loop. `parse` gives the sections of a module with the parts that decide what a canister
is: types, imports, exports, globals, custom sections. Function bodies stay bytes (see `metering`).
Format: https://webassembly.github.io/spec/core/binary/
"""

from __future__ import annotations

from dataclasses import dataclass, field

HEADER = b"\0asm\x01\0\0\0"

CUSTOM, TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START, ELEMENT, CODE, DATA = range(
    12
)
DATA_COUNT = 12
_ORDER = (TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START, ELEMENT, DATA_COUNT, CODE)
_RANK = {section: rank for rank, section in enumerate((*_ORDER, DATA))}

I32, I64, F32, F64, V128 = 0x7F, 0x7E, 0x7D, 0x7C, 0x7B
VALUE_NAMES = {I32: "i32", I64: "i64", F32: "f32", F64: "f64", V128: "v128"}
_REFERENCES = (0x70, 0x6F)


class InvalidModule(Exception):  # noqa: N818 - named for what it says about the bytes
    """The bytes are not a module that the platform accepts; the text says why."""


def leb(value: int) -> bytes:
    """Encode an unsigned number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def sleb(value: int) -> bytes:
    """Encode a signed number."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def text(value: str) -> bytes:
    """Encode a name with its length in front."""
    raw = value.encode()
    return leb(len(raw)) + raw


class Reader:
    """A position in bytes that never leaves `[start, end)`."""

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = start
        self.end = len(data) if end is None else end

    def byte(self) -> int:
        """Read one byte."""
        if self.at >= self.end:
            raise InvalidModule(f"unexpected end at offset {self.at:#x}")
        value = self.data[self.at]
        self.at += 1
        return value

    def u32(self) -> int:
        """Read an unsigned number of at most 32 bits."""
        result = shift = 0
        while True:
            value = self.byte()
            result |= (value & 0x7F) << shift
            if value < 0x80:
                break
            shift += 7
            if shift > 28:
                raise InvalidModule(f"number too long at offset {self.at:#x}")
        if result >> 32:
            raise InvalidModule(f"number too large at offset {self.at:#x}")
        return result

    def u64(self) -> int:
        """Read an unsigned number of at most 64 bits."""
        result = shift = 0
        while True:
            value = self.byte()
            result |= (value & 0x7F) << shift
            if value < 0x80:
                return result
            shift += 7
            if shift > 63:
                raise InvalidModule(f"number too long at offset {self.at:#x}")

    def raw(self, size: int) -> bytes:
        """Read `size` bytes."""
        if size > self.end - self.at:
            raise InvalidModule(f"{size} bytes announced at offset {self.at:#x}, fewer are left")
        value = self.data[self.at : self.at + size]
        self.at += size
        return value

    def name(self) -> str:
        """Read a UTF-8 name."""
        try:
            return self.raw(self.u32()).decode()
        except UnicodeDecodeError:
            raise InvalidModule(f"a name at offset {self.at:#x} is not UTF-8") from None

    def count(self, smallest: int = 1) -> int:
        """Read a number of items, each of at least `smallest` bytes."""
        value = self.u32()
        if value * smallest > self.end - self.at:
            raise InvalidModule(f"{value} items announced at offset {self.at:#x}, too many")
        return value

    def value_type(self) -> int:
        """Read a number, vector or reference type."""
        value = self.byte()
        if value not in VALUE_NAMES and value not in _REFERENCES:
            raise InvalidModule(f"unknown type {value:#x} at offset {self.at - 1:#x}")
        return value

    def limits(self) -> tuple[int, int, int | None]:
        """Read flags, minimum and maximum of a table or memory."""
        flags = self.byte()
        number = self.u64 if flags & 4 else self.u32
        minimum = number()
        return flags, minimum, number() if flags & 1 else None

    def const_expr(self) -> bytes:
        """Read a constant expression and give its bytes, `end` included."""
        start = self.at
        while True:
            opcode = self.byte()
            if opcode == 0x0B:
                return self.data[start : self.at]
            if opcode in (0x41, 0x42, 0x23, 0xD0, 0xD2):
                while self.byte() & 0x80:
                    pass
            elif opcode == 0x43:
                self.raw(4)
            elif opcode == 0x44:
                self.raw(8)
            elif opcode == 0xFD and self.u32() == 12:
                self.raw(16)
            elif opcode not in (0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E):
                raise InvalidModule(f"opcode {opcode:#x} in a constant expression")


@dataclass(frozen=True)
class FunctionType:
    """Parameter and result types of a function."""

    params: tuple[int, ...]
    results: tuple[int, ...]

    def __str__(self) -> str:
        def names(types: tuple[int, ...]) -> str:
            return " ".join(VALUE_NAMES.get(t, "ref") for t in types)

        return f"({names(self.params)}) -> ({names(self.results)})"


@dataclass(frozen=True)
class Import:
    """An imported function."""

    module: str
    name: str
    type: int


@dataclass(frozen=True)
class Export:
    """An export: kind 0 function, 1 table, 2 memory, 3 global."""

    name: str
    kind: int
    index: int


@dataclass(frozen=True)
class Global:
    """A global's type and whether it may change."""

    type: int
    mutable: bool


@dataclass
class Sections:
    """A module taken apart. `raw` holds every section in order, as (id, content)."""

    raw: list[tuple[int, bytes]] = field(default_factory=list)
    types: list[FunctionType] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    tables: int = 0
    memories: int = 0
    globals: list[Global] = field(default_factory=list)
    exports: list[Export] = field(default_factory=list)
    start: int | None = None
    custom: list[tuple[str, bytes]] = field(default_factory=list)
    code_size: int = 0

    def function_type(self, index: int) -> FunctionType:
        """The type of a function by its index, imported ones first."""
        try:
            if index < len(self.imports):
                return self.types[self.imports[index].type]
            return self.types[self.functions[index - len(self.imports)]]
        except IndexError:
            raise InvalidModule(f"function {index} or its type does not exist") from None


def parse(data: bytes) -> Sections:
    """Take a module apart."""
    if data[:8] != HEADER:
        raise InvalidModule("these bytes are no Wasm module of version 1")
    sections = Sections()
    reader = Reader(data, 8)
    last = -1
    while reader.at < reader.end:
        kind = reader.byte()
        size = reader.u32()
        content = reader.raw(size)
        if kind != CUSTOM:
            if kind not in _RANK:
                raise InvalidModule(f"unknown section {kind}")
            if _RANK[kind] <= last:
                raise InvalidModule(f"section {kind} is repeated or out of order")
            last = _RANK[kind]
        sections.raw.append((kind, content))
        _parse_section(sections, kind, Reader(content))
    return sections


def _parse_section(sections: Sections, kind: int, reader: Reader) -> None:
    if kind == CUSTOM:
        name = reader.name()
        sections.custom.append((name, reader.raw(reader.end - reader.at)))
        return
    if kind == START:
        sections.start = reader.u32()
    elif kind == CODE:
        sections.code_size = reader.end
        return
    elif kind == TYPE:
        sections.types = [_function_type(reader) for _ in range(reader.count(3))]
    elif kind == IMPORT:
        sections.imports = [_import(reader) for _ in range(reader.count(4))]
    elif kind == FUNCTION:
        sections.functions = [reader.u32() for _ in range(reader.count())]
    elif kind == TABLE:
        sections.tables = reader.u32()
        return
    elif kind == MEMORY:
        sections.memories = reader.count(2)
        for _ in range(sections.memories):
            flags, _, _ = reader.limits()
            if flags & ~1:
                raise InvalidModule("shared, 64-bit or custom-page memory is not supported")
    elif kind == GLOBAL:
        for _ in range(reader.count(3)):
            value, mutable = reader.value_type(), reader.byte()
            reader.const_expr()
            sections.globals.append(Global(value, bool(mutable)))
    elif kind == EXPORT:
        for _ in range(reader.count(3)):
            sections.exports.append(Export(reader.name(), reader.byte(), reader.u32()))
    else:
        return
    if reader.at != reader.end:
        raise InvalidModule(f"section {kind} has bytes left over")


def _function_type(reader: Reader) -> FunctionType:
    if reader.byte() != 0x60:
        raise InvalidModule("only function types are accepted in the type section")
    params = tuple(reader.value_type() for _ in range(reader.count()))
    return FunctionType(params, tuple(reader.value_type() for _ in range(reader.count())))


def _import(reader: Reader) -> Import:
    module, name, kind = reader.name(), reader.name(), reader.byte()
    if kind != 0:
        raise InvalidModule(f"import {module}.{name} is no function; only functions can be had")
    return Import(module, name, reader.u32())


def rank(kind: int) -> int:
    """Where a section stands in a module."""
    return _RANK[kind]


def section(kind: int, content: bytes) -> bytes:
    """Write a section."""
    return bytes([kind]) + leb(len(content)) + content

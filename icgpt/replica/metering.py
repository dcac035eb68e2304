"""Rewrites a module so that it counts its own instructions, exactly as the platform does.

A mutable i64 global holds what the message may still spend. At the head of each basic block the
block's weight is taken off; at function entry and at loop heads the module traps if less than
nothing is left. Bulk memory and table operations first pay for each byte or element, through a
small function added at the end. The module's start function becomes an export (it has to run under
the counter, and once), and so do the first table and every mutable global (to be saved and put
back). Nothing is renumbered: all that is added comes last in its index space.
"""

from __future__ import annotations

from dataclasses import dataclass

from icgpt.replica import wasm
from icgpt.replica.wasm import InvalidModule, leb, sleb
from icgpt.replica.weights import SLICE_LIMIT, UNKNOWN, Release

PREFIX = "icgpt:"  # of every export that is added here; modules may not use it themselves
COUNTER = PREFIX + "counter"
START = PREFIX + "start"
TABLE = PREFIX + "table"
GLOBAL = PREFIX + "global "

_KINDS = {wasm.I32: 0, wasm.I64: 1, wasm.F32: 2, wasm.F64: 3, wasm.V128: 4}

SLICE_OVERRUN = -(1 << 62)  # left in the counter by a bulk operation longer than a slice

# How an opcode's immediates are laid out.
_NONE, _LEB, _MEMORY, _TABLE_JUMP, _TWO_LEBS, _FOUR, _EIGHT, _TYPES, _BULK, _VECTOR = range(10)


def _layouts() -> tuple[int, ...]:
    layouts = [_NONE] * 256
    for opcode in (0x02, 0x03, 0x04, 0x0C, 0x0D, 0x10, 0x12, *range(0x20, 0x27)):
        layouts[opcode] = _LEB
    for opcode in (0x3F, 0x40, 0x41, 0x42, 0xD0, 0xD2):
        layouts[opcode] = _LEB
    for opcode in range(0x28, 0x3F):
        layouts[opcode] = _MEMORY
    layouts[0x0E] = _TABLE_JUMP
    layouts[0x11] = layouts[0x13] = _TWO_LEBS
    layouts[0x43], layouts[0x44] = _FOUR, _EIGHT
    layouts[0x1C], layouts[0xFC], layouts[0xFD] = _TYPES, _BULK, _VECTOR
    return tuple(layouts)


_LAYOUT = _layouts()
_BULK_LEBS = (0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 1, 2, 1, 2, 1, 1, 1)
_BULK_CHARGED = frozenset((8, 10, 11, 12, 14, 17))
# Operations whose effect on tables or segments the platform forgets after each message.
_BULK_FORGOTTEN = frozenset((9, 12, 13, 14, 15, 17))
# unreachable, loop, if, else, end, br, br_if, br_table, return, return_call, return_call_indirect
_ENDS_BLOCK = tuple(
    opcode in (0x00, 0x03, 0x04, 0x05, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x12, 0x13)
    for opcode in range(256)
)

MAX_INSTRUCTIONS = 1_000_000  # in one function
MAX_COMPLEXITY = 1_000_000  # of one function: what bounds the time that compiling it takes


def _complexities() -> tuple[int, ...]:
    """What each opcode adds to its function's complexity; those behind 0xFC count alike."""
    out = [1] * 256
    for value, opcodes in (
        (50, (0x02, 0x03, 0x04, 0x0C, 0x0D, 0x0E, 0x10, 0x11, 0x40)),
        (14, (0x25,)),
        (8, (0xD2,)),
        (7, (0x26,)),
        (6, (0xD1,)),
        (5, (*range(0xA8, 0xBB), 0xFC)),
        (4, (0x8B, 0x8C, 0x99, 0x9A)),
        (3, (*range(0x28, 0x36), 0x61, *range(0x6D, 0x71), *range(0x7F, 0x83), 0x98, 0xA6)),
        (2, (*range(0x45, 0x61), *range(0x62, 0x67), *range(0x36, 0x40), 0x69, 0x7B, 0x23, 0x1B)),
    ):
        for opcode in opcodes:
            out[opcode] = value
    return tuple(out)


_COMPLEXITY = _complexities()


@dataclass(frozen=True)
class Metered:
    """A rewritten module."""

    code: bytes
    saved_globals: tuple[int, ...]  # indices of the module's own mutable globals
    global_kinds: tuple[int, ...]  # and their kinds, as wasmtime numbers them
    forgets: bool  # it may change tables or drop segments: needs a fresh instance each message


@dataclass
class _Code:
    """What the rewriting of bodies needs to know."""

    release: Release
    take: tuple[bytes, bytes]  # before and after a block's weight
    check: bytes
    pay: bytes  # a call of the function that charges for bulk operations
    forgets: bool = False


def instrument(sections: wasm.Sections, release: Release) -> Metered:
    """Rewrite a module that `module.prepare` has found acceptable."""
    counter = len(sections.globals)
    function = len(sections.imports) + len(sections.functions)
    index = leb(counter)
    code = _Code(
        release,
        take=(b"\x23" + index + b"\x42", b"\x7d\x24" + index),
        check=b"\x23" + index + b"\x42\x00\x53\x04\x40\x00\x0b",
        pay=b"\x10" + leb(function),
    )
    saved = tuple(i for i, item in enumerate(sections.globals) if item.mutable)
    exports = [(COUNTER, 3, counter), *((f"{GLOBAL}{i}", 3, i) for i in saved)]
    if sections.tables:
        exports.append((TABLE, 1, 0))
    if sections.start is not None:
        exports.append((START, 0, sections.start))

    contents = {kind: content for kind, content in sections.raw if kind != wasm.CUSTOM}
    contents.pop(wasm.START, None)
    contents[wasm.CODE] = _rewrite_code(contents.get(wasm.CODE, b"\0"), code, index)
    added = {
        wasm.TYPE: b"\x60\x01\x7f\x01\x7f",
        wasm.FUNCTION: leb(len(sections.types)),
        wasm.GLOBAL: b"\x7e\x01\x42\x00\x0b",
    }
    for kind, item in added.items():
        contents[kind] = _append(contents.get(kind, b"\0"), 1, item)
    names = b"".join(wasm.text(name) + bytes([kind]) + leb(i) for name, kind, i in exports)
    contents[wasm.EXPORT] = _append(contents.get(wasm.EXPORT, b"\0"), len(exports), names)
    if not sections.memories:
        contents[wasm.MEMORY] = b"\x01\x00\x00"  # one of no pages, so that all modules are alike
    ordered = sorted(contents, key=wasm.rank)
    out = wasm.HEADER + b"".join(wasm.section(kind, contents[kind]) for kind in ordered)
    kinds = tuple(_KINDS[sections.globals[i].type] for i in saved)
    return Metered(out, saved, kinds, code.forgets)


def _append(content: bytes, count: int, items: bytes) -> bytes:
    """Add items to the end of a section."""
    reader = wasm.Reader(content)
    return leb(reader.u32() + count) + content[reader.at :] + items


def _rewrite_code(content: bytes, code: _Code, index: bytes) -> bytes:
    reader = wasm.Reader(content)
    count = reader.count()
    out = [leb(count + 1)]
    for _ in range(count):
        size = reader.u32()
        start = reader.at
        reader.raw(size)
        try:
            body = _rewrite_body(content, start, start + size, code)
        except IndexError:
            raise InvalidModule("the code section ends inside a function") from None
        out += (leb(len(body)), body)
    if reader.at != reader.end:
        raise InvalidModule("the code section has bytes left over")
    # (func (param i32) (result i32)): pays for a bulk operation of that many bytes or elements.
    pay = (
        b"\x00\x20\x00\x41" + sleb(SLICE_LIMIT) + b"\x4b\x04\x40"
        b"\x42" + sleb(SLICE_OVERRUN) + b"\x24" + index + b"\x00\x0b"
        b"\x23" + index + b"\x20\x00\xad\x7d\x24" + index + code.check + b"\x20\x00\x0b"
    )
    out += (leb(len(pay)), pay)
    return b"".join(out)


def _skip(data: bytes, at: int) -> int:
    while data[at] >= 0x80:
        at += 1
    return at + 1


def _number(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        value = data[at]
        at += 1
        result |= (value & 0x7F) << shift
        if value < 0x80:
            return result, at
        shift += 7
        if shift > 28:
            raise InvalidModule(f"number too long at offset {at:#x} of the code section")


def _memory_argument(data: bytes, at: int) -> int:
    if data[at] & 0x40:
        raise InvalidModule("more than one memory is not supported")
    return _skip(data, _skip(data, at))


def _rewrite_body(data: bytes, at: int, end: int, code: _Code) -> bytes:
    """Insert the counting into one function body.

    One loop over all opcodes of a module: this is the only part whose speed matters, so it works on
    plain indices. A wrong index shows as `IndexError` or as a body that does not end at its end.
    """
    weights, ends, layouts = code.release.scalar, _ENDS_BLOCK, _LAYOUT
    complexities, complexity, instructions = _COMPLEXITY, 0, 0
    take, give = code.take
    begin = at
    groups, at = _number(data, at)
    for _ in range(groups):
        at = _skip(data, at) + 1
    out = [data[begin:at]]
    start = at  # of the block that is being weighed
    weight = code.release.function_entry
    held: list[bytes] = []  # finished parts of that block, where it was cut for a bulk operation
    check = code.check  # emptied unless this block can be entered again: function entry, loop head
    while at < end:
        opcode = data[at]
        cost = weights[opcode]
        if cost < 0:
            raise InvalidModule(f"opcode {opcode:#x} is not supported")
        weight += cost
        complexity += complexities[opcode]
        instructions += 1
        layout = layouts[opcode]
        here = at
        at += 1
        if layout == _NONE:
            pass
        elif layout == _LEB:
            while data[at] >= 0x80:
                at += 1
            at += 1
        elif layout == _MEMORY:
            at = _memory_argument(data, at)
        elif layout == _VECTOR:
            at, cost = _vector(data, at, code.release)
            weight += cost
        elif layout == _FOUR:
            at += 4
        elif layout == _EIGHT:
            at += 8
        elif layout == _TWO_LEBS:
            at = _skip(data, _skip(data, at))
        elif layout == _TABLE_JUMP:
            targets, at = _number(data, at)
            for _ in range(targets + 1):
                at = _skip(data, at)
        elif layout == _TYPES:
            types, at = _number(data, at)
            at += types
        else:
            operation, at = _number(data, at)
            if operation >= len(_BULK_LEBS):
                raise InvalidModule(f"opcode 0xfc {operation} is not supported")
            weight += code.release.bulk[operation]
            for _ in range(_BULK_LEBS[operation]):
                at = _skip(data, at)
            if operation in _BULK_CHARGED:
                held += (data[start:here], code.pay)
                start = here
            if operation in _BULK_FORGOTTEN:
                code.forgets = True
        if opcode == 0x26:
            code.forgets = True
        if ends[opcode]:
            if weight:
                out += (take, sleb(weight), give)
            if check:
                out.append(check)
            if held:
                out += held
                held = []
            out.append(data[start:at])
            start = at
            weight = 0
            check = code.check if opcode == 0x03 else b""
    if at != end or start != end:
        raise InvalidModule("a function body does not end where it says")
    if complexity > MAX_COMPLEXITY or instructions > MAX_INSTRUCTIONS:
        raise InvalidModule(
            f"a function has {instructions} instructions and a complexity of {complexity}; "
            f"{MAX_INSTRUCTIONS} and {MAX_COMPLEXITY} are allowed"
        )
    return b"".join(out)


def _vector(data: bytes, at: int, release: Release) -> tuple[int, int]:
    """Skip a vector operation's immediates; gives the new position and the weight."""
    operation, at = _number(data, at)
    if operation > 255 or release.vector[operation] == UNKNOWN:
        raise InvalidModule(f"opcode 0xfd {operation} is not supported (relaxed SIMD is refused)")
    if operation <= 11 or operation in (92, 93):
        at = _memory_argument(data, at)
    elif operation in (12, 13):
        at += 16
    elif 21 <= operation <= 34:
        at += 1
    elif 84 <= operation <= 91:
        at = _memory_argument(data, at) + 1
    return at, release.vector[operation]

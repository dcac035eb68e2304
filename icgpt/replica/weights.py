"""What execution costs on the platform, in instructions: one table for each release of its prices.

Three kinds of figures stand here and nowhere else: the weight of each Wasm operator (added up for
each basic block by `metering`), the charge of each system call (a fixed part and a part for each
byte), and the limits of a message. Weights and charges are those of a 32-bit heap, read from the
platform's public sources. A further table holds what touched pages of memory cost (`PagePrices`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

UNKNOWN = -1  # weight of an opcode that no accepted module may contain

BYTE_TRANSMISSION = 50  # a byte that leaves the sandbox: replies, call arguments, logs
LOG_CAPACITY = 4096  # bytes of log that a message may leave behind

SLICE_LIMIT = 2_000_000_000  # the longest single bulk operation


def _scalar_weights() -> tuple[int, ...]:
    """Weights of the one-byte opcodes; the prefixes 0xFC and 0xFD have tables of their own."""
    known = [
        *range(0x06),
        *range(0x0B, 0x14),
        *range(0x1A, 0x1D),
        *range(0x20, 0x27),
        *range(0x28, 0xC5),
        *range(0xD0, 0xD3),
        0xFC,
        0xFD,
    ]
    weights = [UNKNOWN] * 256
    for opcode in known:
        weights[opcode] = 1

    def put(weight: int, *opcodes: int) -> None:
        for opcode in opcodes:
            weights[opcode] = weight

    put(0, 0x02, 0x03, 0x05, 0x0B)  # block, loop, else, end
    put(2, 0x04, 0x0C, 0x0D, 0x0E)  # if, br, br_if, br_table
    put(5, 0x10)  # call
    put(10, 0x11)  # call_indirect
    put(3, 0x12)  # return_call
    put(60, 0x13)  # return_call_indirect
    put(2, 0x23, 0x24)  # global.get, global.set
    put(5, 0x25, 0x26)  # table.get, table.set
    put(20, 0x3F)  # memory.size
    put(300, 0x40)  # memory.grow
    put(3, *range(0x5B, 0x67))  # float comparisons
    put(10, *range(0x6D, 0x71), *range(0x7F, 0x83))  # integer division and remainder
    put(2, *range(0x8D, 0x91), *range(0x92, 0x95))  # f32 rounding, add, sub, mul
    put(5, 0x91)  # f32.sqrt
    put(3, 0x95)  # f32.div
    put(18, 0x96, 0x97)  # f32.min, f32.max
    put(2, 0x98)  # f32.copysign
    put(2, *range(0x9B, 0x9F), *range(0xA0, 0xA3))  # f64 rounding, add, sub, mul
    put(8, 0x9F)  # f64.sqrt
    put(5, 0xA3)  # f64.div
    put(18, 0xA4, 0xA5)  # f64.min, f64.max
    put(3, 0xA6)  # f64.copysign
    put(20, *range(0xA8, 0xAC), *range(0xAE, 0xB2))  # trapping float to integer
    put(3, 0xB2, 0xB4, 0xB7, 0xB9)  # signed integer to float
    put(16, 0xB3, 0xB5, 0xB8, 0xBA)  # unsigned integer to float
    put(5, 0xD1)  # ref.is_null
    put(130, 0xD2)  # ref.func
    put(0, 0xFC, 0xFD)
    return tuple(weights)


def _bulk_weights() -> tuple[int, ...]:
    """Weights behind the prefix 0xFC: saturating truncation, bulk memory and table operations."""
    weights = [20] * 8 + [100] * 10
    weights[9] = weights[13] = weights[15] = 300  # data.drop, elem.drop, table.grow
    return tuple(weights)


def _vector_weights() -> tuple[int, ...]:
    """Weights behind the prefix 0xFD; relaxed SIMD (from 256 on) is not accepted."""
    weights = [1] * 256
    for hole in (154, 162, 165, 166, 175, 176, 178, 179, 180, 187, 194, 197, 198):
        weights[hole] = UNKNOWN
    for hole in (207, 208, 210, 211, 212, 226, 238):
        weights[hole] = UNKNOWN

    def put(weight: int, *opcodes: int) -> None:
        for opcode in opcodes:
            weights[opcode] = weight

    put(3, 13)  # i8x16.shuffle
    put(2, 38, 40, 48, 50, 58, 60)  # lt_u and gt_u of i8x16, i16x8, i32x4
    put(3, 98, 107, 108)  # i8x16.popcnt, shl, shr_s
    put(2, 109)  # i8x16.shr_u
    put(2, 103, 104, 105, 106)  # f32x4 rounding
    put(2, 116, 117, 122, 148)  # f64x2 rounding
    put(2, 125)  # i16x8.extadd_pairwise_i8x16_u
    put(3, 127)  # i32x4.extadd_pairwise_i16x8_u
    put(2, 139, 140, 141)  # i16x8 shifts
    put(2, 157, 159)  # i16x8.extmul_high_i8x16
    put(2, 171, 172, 173, 181)  # i32x4 shifts and mul
    put(2, 188, 189, 190, 191)  # i32x4.extmul
    put(2, 203, 205)  # i64x2.shl, shr_u
    put(3, 204)  # i64x2.shr_s
    put(4, 213)  # i64x2.mul
    put(2, 224, 225, 228, 229, 230)  # f32x4.abs, neg, add, sub, mul
    put(5, 227)  # f32x4.sqrt
    put(10, 231)  # f32x4.div
    put(4, 232, 233)  # f32x4.min, max
    put(2, 236, 237, 240, 241, 242)  # f64x2.abs, neg, add, sub, mul
    put(14, 239)  # f64x2.sqrt
    put(12, 243)  # f64x2.div
    put(4, 244)  # f64x2.min
    put(5, 245)  # f64x2.max
    put(2, 248, 252)  # i32x4.trunc_sat_f32x4_s, trunc_sat_f64x2_s_zero
    put(4, 249, 251)  # i32x4.trunc_sat_f32x4_u, f32x4.convert_i32x4_u
    put(3, 253)  # i32x4.trunc_sat_f64x2_u_zero
    return tuple(weights)


def _calls() -> dict[str, int]:
    """Fixed charges of the system calls that do not cost `Release.call_default`."""
    return {
        "call_new": 1_500,
        "call_perform": 5_000,
        "cost_http_request_v2": 10_000,
        "debug_print": 100,
        "is_controller": 1_000,
        "performance_counter": 200,
        "stable_size": 0,
        "stable_grow": 100,
        "stable_read": 20,
        "stable_write": 20,
        "stable64_size": 0,
        "stable64_grow": 100,
        "stable64_read": 20,
        "stable64_write": 20,
    }


@dataclass(frozen=True)
class Limits:
    """Instructions that one message may use, by kind; and what a benchmark is spared besides."""

    update: int = 40_000_000_000  # also timers, heartbeats and callbacks
    query: int = 5_000_000_000
    install: int = 300_000_000_000
    inspect: int = 200_000_000
    # Bytes of stable memory, in whole pages, that one message may touch.
    update_stable: int = 2 << 30
    query_stable: int = 1 << 30
    install_stable: int = 8 << 30
    method_names: int = 20_000  # bytes of the names of a module's methods together


WASM_PAGE = 1 << 16
OS_PAGE = 1 << 12


@dataclass(frozen=True)
class PagePrices:
    """What a message pays for each page of memory that it touches, the first time.

    `unit` is what the platform tracks as one page. Accesses and writes are charged at once, each
    page once; `*_after` for each written page when the message has ended. A first write is an
    access too. Queries pay for accesses alone, as what they write is forgotten; before 2026-07 they
    paid for first writes to stable memory (`queries_write`).
    """

    unit: int = WASM_PAGE
    heap_access: int = 0
    heap_write: int = 0
    heap_after: int = 0
    stable_access: int = 0
    stable_write: int = 0
    stable_after: int = 0
    queries_write: bool = False

    @property
    def heap_counts(self) -> bool:
        """Whether touching the heap costs anything."""
        return bool(self.heap_access or self.heap_write or self.heap_after)


# dfinity/ic pull request 10789 (2026-07): 5,000 for each 4 KiB page, in whole Wasm pages, at the
# first access and again at the first write; 3,000 for each written one after the message.
_TOUCHED = 5_000 * (WASM_PAGE // OS_PAGE)
_COPIED = 3_000 * (WASM_PAGE // OS_PAGE)
PAGES_2026_07 = PagePrices(
    heap_access=_TOUCHED,
    heap_write=_TOUCHED,
    heap_after=_COPIED,
    stable_access=_TOUCHED,
    stable_write=_TOUCHED,
    stable_after=_COPIED,
)
# Before it: reads are free, a written 4 KiB page costs 1,000, of stable memory at once and of the
# heap after the message, and 3,000 for copying it.
PAGES_2026_06 = PagePrices(
    unit=OS_PAGE, heap_after=4_000, stable_write=1_000, stable_after=3_000, queries_write=True
)


@dataclass(frozen=True)
class Release:
    """The prices of one release of the platform, named by the month they were read."""

    name: str
    scalar: tuple[int, ...] = field(default_factory=_scalar_weights)
    bulk: tuple[int, ...] = field(default_factory=_bulk_weights)
    vector: tuple[int, ...] = field(default_factory=_vector_weights)
    function_entry: int = 1
    call_default: int = 500
    calls: dict[str, int] = field(default_factory=_calls)
    limits: Limits = field(default_factory=Limits)
    pages: PagePrices = PAGES_2026_07

    def call(self, name: str) -> int:
        """The fixed charge of the system call `ic0.NAME`."""
        return self.calls.get(name, self.call_default)


CURRENT = Release("2026-07")
BEFORE = Release("2026-06", pages=PAGES_2026_06)
WITHOUT_PAGES = Release("2026-07 without pages", pages=PagePrices())  # to reckon code alone
RELEASES = {release.name: release for release in (CURRENT, BEFORE, WITHOUT_PAGES)}

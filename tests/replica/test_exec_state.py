"""What a message leaves behind: commits, rollbacks, restarts, upgrades."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exec_support import ENVIRONMENT, Driver, trap_text, wat

from icgpt.replica import folder, heap, pages, stable
from icgpt.replica.execution import Canister, InvalidModule
from icgpt.replica.messages import Kind
from icgpt.replica.reading import Reader

# Three places to keep a number: a global, the heap, stable memory; each method adds to all three.
COUNTERS = """
(global $g (mut i32) (i32.const 0))
(func $answer (param $value i32)
  (i32.store (i32.const 64) (local.get $value))
  (call $msg_reply_data_append (i32.const 64) (i32.const 4)) (call $msg_reply))
(func $add
  (if (i64.eqz (call $stable64_size)) (then (drop (call $stable64_grow (i64.const 1)))))
  (global.set $g (i32.add (global.get $g) (i32.const 1)))
  (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
  (call $stable64_read (i64.const 16) (i64.const 0) (i64.const 4))
  (i32.store (i32.const 16) (i32.add (i32.load (i32.const 16)) (i32.const 1)))
  (call $stable64_write (i64.const 0) (i64.const 16) (i64.const 4)))
(func $grow (drop (memory.grow (i32.const 2))) (drop (call $stable64_grow (i64.const 3))))
(func (export "canister_update add") (call $add) (call $msg_reply))
(func (export "canister_update grow") (call $grow) (call $msg_reply))
(func (export "canister_update add_trap") (call $add) (call $grow) unreachable)
(func (export "canister_update far_trap") (i32.store (i32.const 50000) (i32.const 1)) unreachable)
(func (export "canister_query add_query") (call $add) (call $grow) (call $msg_reply))
(func (export "canister_query in_global") (call $answer (global.get $g)))
(func (export "canister_query in_heap") (call $answer (i32.load (i32.const 0))))
(func (export "canister_query in_stable")
  (call $stable64_read (i64.const 16) (i64.const 0) (i64.const 4))
  (call $answer (i32.load (i32.const 16))))
(func (export "canister_query heap_pages") (call $answer (memory.size)))
(func (export "canister_query far") (call $answer (i32.load (i32.const 50000))))
(func (export "canister_query stable_pages") (call $answer (i32.wrap_i64 (call $stable64_size))))
"""
CALLS = (
    "msg_reply",
    "msg_reply_data_append",
    "stable64_size",
    "stable64_grow",
    "stable64_read",
    "stable64_write",
)
IMPORTS = (*CALLS, "trap")


def counters(extra: str = "") -> bytes:
    return wat(COUNTERS + extra, *IMPORTS)


def seen(driver: Driver) -> tuple[int, ...]:
    """All that the canister keeps."""
    return tuple(
        driver.number(name)
        for name in ("in_global", "in_heap", "in_stable", "heap_pages", "stable_pages")
    )


@pytest.fixture(params=["scan", "pagemap", "compare"])
def driver(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Driver]:
    """A canister with the counters, under each way to find dirty pages."""
    monkeypatch.setattr(heap, "_dirty_pages", finder(request.param))
    made = Driver(tmp_path)
    assert made.install(counters()).trap is None
    assert made.update("add").trap is None
    yield made
    made.canister.close()


def finder(means: str) -> pages.DirtyPages:
    found = pages.DirtyPages()
    found._open()
    if means == "scan" and not found._scan:
        pytest.skip("this kernel has no PAGEMAP_SCAN")
    if means != "scan":
        found._scan = False
    if means == "pagemap" and found._pagemap < 0:
        pytest.skip("no /proc/self/pagemap")
    if means == "compare" and found._pagemap >= 0:
        os.close(found._pagemap)
        found._pagemap = -1
    return found


def test_updates_add_up(driver: Driver) -> None:
    driver.update("add")
    assert seen(driver) == (2, 2, 2, 1, 1)


def test_a_trap_undoes_everything(driver: Driver) -> None:
    for _ in range(3):
        assert "unreachable" in trap_text(driver.update("add_trap"))
        assert seen(driver) == (1, 1, 1, 1, 1)
    driver.update("add")
    assert seen(driver) == (2, 2, 2, 1, 1)
    assert "unreachable" in trap_text(driver.update("far_trap"))
    assert driver.number("far") == 0


def test_a_query_leaves_nothing(driver: Driver) -> None:
    assert driver.query("add_query").trap is None
    assert seen(driver) == (1, 1, 1, 1, 1)
    assert driver.query("add_query", replicated=True).trap is None
    assert seen(driver) == (1, 1, 1, 1, 1)


def test_growth_is_kept_and_starts_as_zeros(driver: Driver) -> None:
    driver.update("grow")
    driver.update("grow")
    assert seen(driver) == (1, 1, 1, 5, 7)
    assert driver.canister.heap_bytes == 5 << 16
    assert driver.canister.stable_bytes == 7 << 16
    driver.update("add")
    assert seen(driver) == (2, 2, 2, 5, 7)


def test_a_restart_goes_on_with_what_was_committed(driver: Driver) -> None:
    driver.update("grow")
    driver.update("add")
    driver.update("add_trap")
    driver.reopen()
    assert seen(driver) == (2, 2, 2, 3, 4)
    driver.update("add")
    driver.reopen()
    assert seen(driver) == (3, 3, 3, 3, 4)


def test_a_process_that_was_killed_loses_nothing_committed(driver: Driver) -> None:
    """The folder as another process finds it, without any closing."""
    driver.update("add")
    second = Driver(driver.folder)
    assert seen(second) == (2, 2, 2, 1, 1)
    second.canister.close()


def test_an_upgrade_keeps_stable_memory_only(driver: Driver) -> None:
    driver.update("add")
    before = driver.canister.module_hash
    outcome = driver.install(counters('(func (export "canister_query new"))'), mode="upgrade")
    assert outcome.trap is None
    assert driver.canister.module_hash != before
    assert "canister_query new" in driver.canister.exports
    assert seen(driver) == (0, 0, 2, 1, 1)
    driver.reopen()
    assert seen(driver) == (0, 0, 2, 1, 1)


def test_reinstalling_drops_stable_memory(driver: Driver) -> None:
    assert driver.install(counters(), mode="reinstall").trap is None
    assert driver.number("stable_pages") == 0
    driver.update("add")
    assert seen(driver) == (1, 1, 1, 1, 1)
    driver.reopen()
    assert seen(driver) == (1, 1, 1, 1, 1)


PRE = """(func (export "canister_pre_upgrade") (call $add) (call $grow)
  (i32.store (i32.const 0) (i32.const 77)))"""


def test_pre_upgrade_writes_stable_memory_for_the_new_code(driver: Driver) -> None:
    driver.install(counters(PRE), mode="reinstall")
    driver.update("add")
    outcome = driver.install(counters(PRE), mode="upgrade")
    assert outcome.trap is None
    assert seen(driver) == (0, 0, 2, 1, 4)
    outcome = driver.canister.install(counters(PRE), b"", b"\4", ENVIRONMENT, "upgrade", True)
    assert outcome.trap is None
    assert seen(driver) == (0, 0, 2, 1, 4)


def test_a_trap_in_post_upgrade_restores_everything(driver: Driver) -> None:
    driver.install(counters(PRE), mode="reinstall")
    driver.update("add")
    before = driver.canister.module_hash
    bad = counters('(func (export "canister_post_upgrade") (call $add) (call $grow) unreachable)')
    assert "unreachable" in trap_text(driver.install(bad, mode="upgrade"))
    assert driver.canister.module_hash == before
    assert seen(driver) == (1, 1, 1, 1, 1)
    driver.update("add")
    driver.reopen()
    assert seen(driver) == (2, 2, 2, 1, 1)


def test_a_trap_in_pre_upgrade_stops_the_upgrade(driver: Driver) -> None:
    code = counters('(func (export "canister_pre_upgrade") (call $add) unreachable)')
    driver.install(code, mode="reinstall")
    driver.update("add")
    assert "unreachable" in trap_text(driver.install(counters(), mode="upgrade"))
    assert seen(driver) == (1, 1, 1, 1, 1)
    assert driver.canister.exports >= {"canister_pre_upgrade"}


def test_a_trap_in_a_reinstallation_restores_everything(driver: Driver) -> None:
    bad = counters('(func (export "canister_init") (call $add) unreachable)')
    assert "unreachable" in trap_text(driver.install(bad, mode="reinstall"))
    assert seen(driver) == (1, 1, 1, 1, 1)
    driver.reopen()
    assert seen(driver) == (1, 1, 1, 1, 1)


def test_an_invalid_module_changes_nothing(driver: Driver) -> None:
    for mode in ("upgrade", "reinstall"):
        with pytest.raises(InvalidModule):
            driver.install(b"junk", mode=mode)
    assert seen(driver) == (1, 1, 1, 1, 1)


def test_modes_that_do_not_fit(driver: Driver) -> None:
    assert "IC0514" in trap_text(driver.install(counters()))
    driver.canister.uninstall()
    assert "IC0537" in trap_text(driver.install(counters(), mode="upgrade"))


def test_uninstalling(driver: Driver) -> None:
    driver.canister.uninstall()
    assert not driver.canister.installed
    assert driver.canister.module_hash is None
    assert driver.canister.stable_bytes == 0
    assert "IC0537" in trap_text(driver.update("add"))
    driver.reopen()
    assert not driver.canister.installed
    assert driver.install(counters()).trap is None
    driver.update("add")
    assert seen(driver) == (1, 1, 1, 1, 1)


def test_only_files_in_force_stay(driver: Driver) -> None:
    for mode in ("upgrade", "reinstall", "upgrade"):
        driver.install(counters(), mode=mode)
    kinds = sorted(path.name.split("-")[0] for path in driver.folder.iterdir())
    assert kinds == ["heap", "journal", "module", "stable", "state"]
    driver.canister.delete()
    assert not driver.folder.exists()
    driver.canister = Canister(driver.folder)


POKE = """(func (export "canister_update poke") (local $n i32)
  (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (i32.const 12))
  (drop (memory.grow (i32.load (i32.const 4))))
  (local.set $n (i32.sub (call $msg_arg_data_size) (i32.const 12)))
  (call $msg_arg_data_copy (i32.load (i32.const 0)) (i32.const 12) (local.get $n))
  (if (i32.load (i32.const 8)) (then unreachable)) (call $msg_reply))
(func (export "canister_query peek")
  (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (i32.const 8))
  (call $msg_reply_data_append (i32.load (i32.const 0)) (i32.load (i32.const 4))) (call $msg_reply))
"""


def test_the_heap_against_a_plain_copy(driver: Driver) -> None:
    code = wat(POKE, "msg_arg_data_size", "msg_arg_data_copy", "msg_reply", "msg_reply_data_append")
    assert driver.install(code, mode="reinstall").trap is None
    source = random.Random(4)
    first = 16  # the bytes before it hold the arguments
    expected = bytearray(1 << 16)
    for step in range(120):
        grown = source.choice((0, 0, 0, 1, 3))
        trap = source.random() < 0.4
        changed = expected + bytes(grown << 16)
        data = source.randbytes(source.choice((1, 100, 5000, 40_000)))
        at = source.randrange(first, len(changed) - len(data))
        changed[at : at + len(data)] = data
        head = b"".join(number.to_bytes(4, "little") for number in (at, grown, int(trap)))
        assert (driver.update("poke", head + data).trap is not None) == trap
        if not trap:
            expected = changed
        if step % 40 == 39:
            driver.reopen()
        assert driver.canister.heap_bytes == len(expected)
        size = min(len(expected) - first, 2 << 20)
        at = source.randrange(first, len(expected) - size + 1)
        where = at.to_bytes(4, "little") + size.to_bytes(4, "little")
        assert driver.query("peek", where).reply == expected[at : at + size]


def test_many_installations_hold_no_memory(driver: Driver) -> None:
    def mappings() -> int:
        return Path("/proc/self/maps").read_text().count("\n")

    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc")
    for _ in range(3):
        driver.install(counters(), mode="reinstall")
    before = mappings()
    for _ in range(20):
        driver.install(counters(), mode="reinstall")
        driver.update("add_trap")
    assert mappings() < before + 20


def test_tables_are_fresh_in_each_message(tmp_path: Path) -> None:
    code = wat(
        """(table $t 1 4 funcref) (elem declare func $f) (func $f)
        (func (export "canister_update grow")
          (drop (table.grow $t (ref.func $f) (i32.const 2))) (call $msg_reply))
        (func (export "canister_query size")
          (i32.store (i32.const 0) (table.size $t))
          (call $msg_reply_data_append (i32.const 0) (i32.const 4)) (call $msg_reply))""",
        "msg_reply",
        "msg_reply_data_append",
    )
    driver = Driver(tmp_path)
    driver.install(code)
    for _ in range(3):
        assert driver.update("grow").trap is None
        assert driver.number("size") == 1
    driver.canister.close()


def test_globals_of_every_type_survive_bit_for_bit(tmp_path: Path) -> None:
    code = wat(
        """(global $a (mut i32) (i32.const 0)) (global $b (mut i64) (i64.const 0))
        (global $c (mut f32) (f32.const 0)) (global $d (mut f64) (f64.const 0))
        (global $e (mut v128) (v128.const i64x2 0 0)) (global i32 (i32.const 4))
        (func (export "canister_update set")
          (global.set $a (i32.const -5)) (global.set $b (i64.const 0x123456789abcdef0))
          (global.set $c (f32.reinterpret_i32 (i32.const 0x7fa00001)))
          (global.set $d (f64.reinterpret_i64 (i64.const 0xfff4000000000001)))
          (global.set $e (v128.const i64x2 0x1122334455667788 0x99aabbccddeeff00)))
        (func (export "canister_query get")
          (i32.store (i32.const 0) (global.get $a)) (i64.store (i32.const 4) (global.get $b))
          (f32.store (i32.const 12) (global.get $c)) (f64.store (i32.const 16) (global.get $d))
          (v128.store (i32.const 24) (global.get $e))
          (call $msg_reply_data_append (i32.const 0) (i32.const 40)) (call $msg_reply))
        (func (export "canister_update boom") (global.set $e (v128.const i64x2 1 1))
          (global.set $a (i32.const 1)) unreachable)""",
        "msg_reply",
        "msg_reply_data_append",
    )
    driver = Driver(tmp_path)
    driver.install(code)
    driver.update("set")
    first = driver.query("get").reply
    assert first is not None
    assert first[:4] == b"\xfb\xff\xff\xff"
    assert first[12:16] == bytes.fromhex("0100a07f")
    assert first[16:24] == bytes.fromhex("010000000000f4ff")
    assert first[24:32] == bytes.fromhex("8877665544332211")
    driver.update("boom")
    assert driver.query("get").reply == first
    driver.reopen()
    assert driver.query("get").reply == first
    driver.canister.close()


def test_memory_can_grow_to_4_gib_and_not_further(tmp_path: Path) -> None:
    code = wat(
        """(func (export "canister_query grow") (local $got i32)
          (local.set $got (memory.grow (i32.const 65535)))
          (i32.store (i32.const -4) (i32.const 9))
          (i32.store (i32.const 0) (local.get $got))
          (i32.store (i32.const 4) (memory.grow (i32.const 1)))
          (call $msg_reply_data_append (i32.const 0) (i32.const 8)) (call $msg_reply))
        (func (export "canister_query beyond") (drop (memory.grow (i32.const 65535)))
          (drop (i32.load offset=4294967295 (i32.const -1))))""",
        "msg_reply",
        "msg_reply_data_append",
    )
    driver = Driver(tmp_path)
    driver.install(code)
    outcome = driver.query("grow")
    assert outcome.reply == b"\1\0\0\0\xff\xff\xff\xff"
    assert "heap out of bounds" in trap_text(driver.query("beyond"))
    assert driver.canister.heap_bytes == 1 << 16
    driver.canister.close()


def test_infinite_recursion_is_a_stack_overflow(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    driver.install(wat('(func $r (call $r)) (func (export "canister_update f") (call $r))'))
    assert "stack overflow" in trap_text(driver.update("f"))
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(driver.update("f")))
    thread.start()
    thread.join()
    assert "stack overflow" in trap_text(outcomes[0])
    driver.canister.close()


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    driver.install(counters())
    driver.canister.close()
    path = tmp_path / "state"
    good = path.read_bytes()
    for bad in (good[:10], good[:-1], b"x" + good[1:], good[:30] + b"\xff" + good[31:]):
        path.write_bytes(bad)
        with pytest.raises(folder.DamagedState):
            Canister(tmp_path)


# -- stable memory on its own ------------------------------------------------------------------


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[stable.StableMemory]:
    fd = os.open(tmp_path / "stable", os.O_RDWR | os.O_CREAT)
    made = stable.StableMemory(fd, 0)
    yield made
    made.release()
    os.close(fd)


def put(memory: stable.StableMemory, offset: int, data: bytes) -> None:
    buffer = ctypes.create_string_buffer(data, len(data))
    memory.write(offset, ctypes.addressof(buffer), len(data))


def get(memory: stable.StableMemory, offset: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    memory.read(ctypes.addressof(buffer), offset, size)
    return buffer.raw


def test_stable_memory_across_windows(memory: stable.StableMemory) -> None:
    assert memory.grow(2 * stable.WINDOW // stable.WASM_PAGE) == 0
    edge = stable.WINDOW - 3
    put(memory, edge, b"abcdef")
    memory.commit()
    put(memory, edge, b"ABCDEF")
    assert get(memory, edge, 6) == b"ABCDEF"
    memory.rollback()
    assert get(memory, edge - 1, 8) == b"\0abcdef\0"
    put(memory, edge, b"ghijkl")
    memory.commit()
    assert os.pread(memory.fd, 6, edge) == b"ghijkl"


def test_stable_memory_is_sparse_and_bounded(memory: stable.StableMemory) -> None:
    assert memory.grow(stable.MAX_PAGES) == 0
    assert memory.grow(1) == -1
    assert memory.grow(1 << 63) == -1
    put(memory, memory.size - 1, b"z")
    memory.commit()
    assert get(memory, memory.size - 2, 2) == b"\0z"
    assert os.fstat(memory.fd).st_blocks * 512 < 1 << 20


def test_stable_memory_over_a_committed_edge(memory: stable.StableMemory) -> None:
    memory.grow(1)
    put(memory, 0, b"k" * 65536)
    memory.commit()
    memory.grow(1)
    put(memory, 65530, b"0123456789")
    assert get(memory, 65528, 14) == b"kk0123456789\0\0"
    memory.rollback()
    assert memory.pages == 1
    assert get(memory, 65528, 8) == b"k" * 8
    memory.grow(1)
    assert get(memory, 65536, 8) == bytes(8)


def test_stable_memory_against_a_plain_copy(memory: stable.StableMemory) -> None:
    source = random.Random(3)
    committed = bytearray()
    for _ in range(60):
        current = bytearray(committed)
        for _ in range(source.randrange(1, 12)):
            if source.random() < 0.15 or not current:
                added = source.randrange(1, 4)
                memory.grow(added)
                current.extend(bytes(added * stable.WASM_PAGE))
            size = min(source.choice((1, 9, 4096, 70_000, 200_000)), len(current))
            at = source.randrange(len(current) - size + 1)
            data = source.randbytes(size)
            put(memory, at, data)
            current[at : at + size] = data
            size = source.randrange(1, len(current) + 1)
            at = source.randrange(len(current) - size + 1)
            assert get(memory, at, size) == current[at : at + size]
        if source.random() < 0.5:
            memory.commit()
            committed = current
        else:
            memory.rollback()
        assert get(memory, 0, len(committed)) == committed if committed else True
    assert os.pread(memory.fd, len(committed) + 1, 0) == committed


@pytest.mark.parametrize("means", ["scan", "pagemap", "compare"])
def test_finding_dirty_pages(tmp_path: Path, means: str) -> None:
    size = 4 << 20
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"a" * (size - 3 * mmap.PAGESIZE), 0)
    os.ftruncate(fd, size)
    base = pages.map_private(None, size, fd, 0)
    whole = pages.view(base, size)
    assert finder(means).find(base, size, fd, size) == []
    assert bytes(whole[: size // 2]).count(b"a") == size // 2  # reading makes nothing dirty
    page = mmap.PAGESIZE
    for at in (0, 5 * page + 7, 6 * page, size - 1):
        whole[at] = 0x62
    found = finder(means).find(base, size, fd, size)
    assert found == [(0, page), (5 * page, 7 * page), (size - page, size)]
    assert pages.write_back(base, found, fd) == 4 * page
    pages.forget(base, found, fd)
    assert finder(means).find(base, size, fd, size) == []
    assert whole[size - 1] == 0x62
    whole.release()
    pages.unmap(base, size)
    os.close(fd)


@pytest.mark.parametrize("means", ["scan", "pagemap", "compare"])
def test_finding_thousands_of_dirty_pages(tmp_path: Path, means: str) -> None:
    page = mmap.PAGESIZE
    size = 6000 * page
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, size)
    base = pages.map_private(None, size, fd, 0)
    whole = pages.view(base, size)
    for at in range(0, size, 2 * page):
        whole[at] = 1
    found = finder(means).find(base, size, fd, size)
    assert found == [(at, at + page) for at in range(0, size, 2 * page)]
    pages.forget(base, found, fd)
    assert finder(means).find(base, size, fd, size) == []
    assert bytes(whole) == bytes(size)
    whole.release()
    pages.unmap(base, size)
    os.close(fd)


def test_messages_that_run_nothing(driver: Driver) -> None:
    assert driver.run(Kind.INSPECT, method="add").accepted
    assert driver.run(Kind.TIMER).trap is None
    assert driver.run(Kind.HEARTBEAT).instructions == 0


def test_what_a_query_leaves_is_not_let_go_of_while_a_commit_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(tmp_path)
    driver.install(counters())
    keeping, ended, order = threading.Event(), threading.Event(), []
    preserve, end = Reader.preserve, Reader.end

    def slowly(self: Reader, *arguments: Any) -> None:
        keeping.set()
        ended.wait(0.2)
        preserve(self, *arguments)
        order.append("kept")

    def told(self: Reader) -> None:
        end(self)
        order.append("ended")
        ended.set()

    monkeypatch.setattr(Reader, "preserve", slowly)
    monkeypatch.setattr(Reader, "end", told)
    begun = threading.Event()

    def read() -> None:
        with driver.canister.reading():
            begun.set()
            keeping.wait()

    thread = threading.Thread(target=read)
    thread.start()
    begun.wait()
    assert driver.update("add").trap is None
    thread.join()
    assert order == ["kept", "ended"]
    assert driver.number("in_heap") == driver.number("in_stable") == 1
    driver.canister.close()

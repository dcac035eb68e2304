"""Commits that are cut off: by a kill at every system call, by a real kill, by a full disk."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exec_support import Driver, wat

from icgpt.replica import folder, journal
from icgpt.replica.execution import Canister

# One number in a global, at both ends of the heap and in stable memory; `grow` adds to all of them.
SPREAD = """
(global $g (mut i32) (i32.const 0))
(func $add
  (if (i64.eqz (call $stable64_size)) (then (drop (call $stable64_grow (i64.const 3)))))
  (global.set $g (i32.add (global.get $g) (i32.const 1)))
  (i32.store (i32.const 0) (global.get $g))
  (i32.store (i32.const 130000) (global.get $g))
  (call $stable64_write (i64.const 0) (i64.const 0) (i64.const 4))
  (call $stable64_write (i64.const 150000) (i64.const 0) (i64.const 4)))
(func (export "canister_update add") (call $add) (call $msg_reply))
(func (export "canister_post_upgrade")
  (call $stable64_read (i64.const 0) (i64.const 0) (i64.const 4))
  (global.set $g (i32.load (i32.const 0))) (call $add))
(func (export "canister_update grow") (call $add)
  (drop (call $stable64_grow (i64.const 1)))
  (i32.store (i32.mul (memory.grow (i32.const 1)) (i32.const 65536)) (i32.const 7))
  (call $msg_reply))
(func (export "canister_query seen")
  (i32.store (i32.const 16) (global.get $g))
  (i32.store (i32.const 20) (i32.load (i32.const 0)))
  (i32.store (i32.const 24) (i32.load (i32.const 130000)))
  (call $stable64_read (i64.const 28) (i64.const 0) (i64.const 4))
  (call $stable64_read (i64.const 32) (i64.const 150000) (i64.const 4))
  (i32.store (i32.const 36) (memory.size))
  (i32.store (i32.const 40) (i32.wrap_i64 (call $stable64_size)))
  (call $msg_reply_data_append (i32.const 16) (i32.const 28)) (call $msg_reply))
"""
MODULE = wat(
    SPREAD,
    *("msg_reply", "msg_reply_data_append"),
    *("stable64_size", "stable64_grow", "stable64_read", "stable64_write"),
    memory='(memory (export "memory") 2)',
)
WRITES = ("pwrite", "pwritev")
WORKER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from exec_support import Driver
driver = Driver(Path(sys.argv[1]))
while True:
    assert driver.update("add").trap is None
    print("done", flush=True)
"""


def seen(driver: Driver) -> list[int]:
    outcome = driver.query("seen")
    assert outcome.reply is not None, outcome.trap
    return [int.from_bytes(outcome.reply[i : i + 4], "little") for i in range(0, 28, 4)]


def act(driver: Driver, action: str) -> None:
    if action == "upgrade":
        outcome = driver.install(MODULE, mode="upgrade")
    else:
        outcome = driver.update(action)
    assert outcome.trap is None


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    made = Driver(tmp_path)
    assert made.install(MODULE).trap is None
    act(made, "add")
    yield made
    made.canister.close()


class _Killed(BaseException):
    """Stands for the end of the process."""


class _Limit:
    """Lets so many writing system calls through, and none after them."""

    def __init__(
        self, patch: pytest.MonkeyPatch, calls: tuple[str, ...], left: int, error: BaseException
    ) -> None:
        self.left = left
        for name in calls:
            patch.setattr(os, name, self._limited(getattr(os, name), error))

    def _limited(self, real: Any, error: BaseException) -> Any:
        def call(*arguments: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise error
            return real(*arguments)

        return call


@pytest.mark.parametrize("action", ["add", "grow", "upgrade"])
def test_a_commit_is_whole_wherever_the_process_dies(driver: Driver, action: str) -> None:
    before = seen(driver)
    outcomes = set()
    for allowed in range(100):
        with pytest.MonkeyPatch.context() as patch:
            limit = _Limit(patch, (*WRITES, "ftruncate"), allowed, _Killed())
            with contextlib.suppress(_Killed):
                act(driver, action)
            finished = limit.left >= 0
        # The folder as the next process finds it, whatever the dead one had in mind.
        driver.canister = Canister(driver.folder)
        after = seen(driver)
        assert len(set(after[:5])) == 1, f"torn after {allowed} system calls: {after}"
        assert after[0] - before[0] in (0, 1)
        outcomes.add(after[0] - before[0])
        if finished:
            break
        before = after
    assert finished
    assert outcomes == {0, 1}


def test_a_full_disk_undoes_the_message_or_delays_it(driver: Driver) -> None:
    before = seen(driver)
    for allowed in range(100):
        with pytest.MonkeyPatch.context() as patch:
            limit = _Limit(patch, WRITES, allowed, OSError("no space left"))
            with contextlib.suppress(OSError):
                act(driver, "grow")
            finished = limit.left >= 0
        after = seen(driver)
        assert len(set(after[:5])) == 1, f"torn after {allowed} system calls: {after}"
        assert [after[i] - before[i] for i in (0, 5, 6)] in ([0, 0, 0], [1, 1, 1])
        before = after
        if finished:
            break
    assert finished
    driver.reopen()
    assert seen(driver) == before


def test_memory_added_by_a_commit_that_failed_is_zero_again(driver: Driver) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal.Journal, "write", _raise)
        with pytest.raises(OSError, match="full"):
            act(driver, "grow")
    assert driver.update("grow").trap is None
    pages = seen(driver)[5]
    heap = next(path for path in driver.folder.iterdir() if path.name.startswith("heap"))
    assert heap.read_bytes()[(pages - 1) * 65536 + 4096 :] == bytes(65536 - 4096)


def _raise(*_: object) -> None:
    raise OSError("the disk is full")


def test_a_real_kill_in_the_middle_of_updates(driver: Driver) -> None:
    driver.canister.close()
    source = random.Random(5)
    count = 1
    for _ in range(4):
        command = [sys.executable, "-c", WORKER, str(driver.folder), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(source.randrange(20, 200)):
                assert process.stdout.readline() == b"done\n"
                count += 1
            process.send_signal(signal.SIGKILL)
            count += process.stdout.read().count(b"done\n")
        driver.canister = Canister(driver.folder)
        found = seen(driver)
        driver.canister.close()
        assert len(set(found[:5])) == 1
        assert found[0] - count in (0, 1)  # the last one may not have been told
        count = found[0]
    driver.canister = Canister(driver.folder)


def test_a_large_commit_leaves_no_large_journal(tmp_path: Path) -> None:
    fill = """(func (export "canister_update fill")
      (memory.fill (i32.const 0) (i32.const 5) (i32.const 16777216)) (call $msg_reply))"""
    driver = Driver(tmp_path)
    driver.install(wat(fill, "msg_reply", memory="(memory 256)"))
    assert driver.update("fill").trap is None
    assert (tmp_path / "journal").stat().st_size == 0
    driver.canister.close()
    assert not (tmp_path / "journal").exists()


def test_a_journal_of_nonsense_is_passed_over(driver: Driver) -> None:
    act(driver, "add")
    good = (driver.folder / "journal").read_bytes()
    expected = seen(driver)
    driver.canister.close()
    for junk in (b"", good[:10], good[:80], b"x" * 500, good[:8] + b"\xff" * 40 + good[48:]):
        (driver.folder / "journal").write_bytes(junk)
        driver.canister = Canister(driver.folder)
        assert seen(driver) == expected
        driver.canister.close()
    driver.canister = Canister(driver.folder)


def test_memory_that_is_missing_is_told(driver: Driver) -> None:
    driver.canister.close()
    for kind in ("heap", "stable"):
        path = next(p for p in driver.folder.iterdir() if p.name.startswith(kind))
        kept = path.read_bytes()
        path.write_bytes(kept[:-1])
        with pytest.raises(folder.DamagedState, match=kind):
            Canister(driver.folder)
        path.write_bytes(kept)
    state = driver.folder / "state"
    kept = state.read_bytes()
    state.write_bytes(b"icgptc1\n" + kept[8:])
    with pytest.raises(folder.DamagedState, match="another version"):
        Canister(driver.folder)
    state.write_bytes(kept)
    driver.canister = Canister(driver.folder)

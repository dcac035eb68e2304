"""One canister's Wasm side: install code, run messages, keep what they leave behind.

A message runs on the live instance. Afterwards either everything it did to heap, globals and stable
memory is committed to the canister's folder, or everything is undone: after a trap, after a query,
and when installing fails. The rest of a message's effects (cycles, calls, timers, certified data)
are only reported, in the `Outcome`.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from icgpt.replica import errors, metering, weights
from icgpt.replica.binding import Binding
from icgpt.replica.errors import Trap
from icgpt.replica.fees import GIB
from icgpt.replica.files import copy_bytes, copy_file
from icgpt.replica.folder import DamagedState, Folder, Record, SavedGlobal
from icgpt.replica.instance import Instance
from icgpt.replica.journal import HEAP, STABLE, Piece
from icgpt.replica.loading import Loaded, load
from icgpt.replica.messages import Environment, Kind, Message, Outcome
from icgpt.replica.reading import Reader, Shown
from icgpt.replica.running import entry_of, keeps_writes, limit_of, meter, run
from icgpt.replica.stable import StableMemory
from icgpt.replica.system_api import SystemApi
from icgpt.replica.wasm import InvalidModule

__all__ = ["Canister", "InvalidModule"]

KEPT_READERS = 2
_HASHED_AT_ONCE = 1 << 24
Mode = Literal["install", "reinstall", "upgrade"]
# What to note down with a commit, so that after a crash its other effects can be had again.
Seal = Callable[[Outcome], bytes]

# Callbacks and the beginning of an upgrade have to get through even past the heap's limit.
_LIMITED = (Kind.START, Kind.INIT, Kind.POST_UPGRADE, Kind.UPDATE, Kind.TIMER, Kind.HEARTBEAT)


class _Code:
    """An installed module and its heap file."""

    def __init__(self, number: int, loaded: Loaded, heap_fd: int, heap_bytes: int) -> None:
        self.number = number
        self.prepared = loaded.prepared
        self.module = loaded.module
        self.heap_fd = heap_fd
        self.heap_bytes = heap_bytes
        self.instance: Instance | None = None

    def close(self) -> None:
        """Drop the instance and close the heap file."""
        self.drop_instance()
        if self.heap_fd >= 0:
            os.close(self.heap_fd)
            self.heap_fd = -1

    def drop_instance(self) -> None:
        """Drop the instance; the next message gets a fresh one at the committed state."""
        if self.instance is not None:
            self.instance.close()
            self.instance = None


class Canister:
    """A canister's code and memories, kept in `folder`. To be used by one thread at a time."""

    def __init__(
        self, folder: Path, release: weights.Release = weights.CURRENT, *, sync: bool = False
    ) -> None:
        self._release = release
        self._sync = sync  # wait for the disk at each commit
        self._folder = Folder(folder, sync=sync)
        self._api = SystemApi()
        self._binding: Binding | None = None
        self._code: _Code | None = None
        self._gate = threading.RLock()  # held while what readers see is changed
        self._shown: Shown | None = None
        self._idle: list[Reader] = []
        self._active: list[Reader] = []
        self._open()

    def _open(self) -> None:
        """Open what is committed."""
        record = self._folder.record
        self._stable_number = record.stable or self._folder.next_number()
        self._stable = self._open_stable(self._stable_number, record.stable_pages)
        if record.module:
            loaded = load(self._folder.read_module(), self._release)
            fd = self._folder.open("heap", record.module, record.heap_bytes)
            self._code = _Code(record.module, loaded, fd, record.heap_bytes)
        self._show(self._code)

    def _show(self, code: _Code | None) -> None:
        """Let readers see the committed state."""
        record = self._folder.record
        with self._gate:
            self._shown = None
            if code is None:
                return
            self._shown = Shown(
                code.number,
                code.prepared,
                code.module,
                code.heap_fd,
                record.heap_bytes,
                record.globals,
                self._stable_number,
                self._stable.fd,
                record.stable_pages,
            )

    @contextmanager
    def reading(self) -> Iterator[Reader | None]:
        """Give an instance for queries, at the committed state; None when there is no code.

        For any thread.
        """
        reader = self._take_reader()
        try:
            yield reader
        finally:
            if reader is not None:
                self._give_back(reader)

    def _take_reader(self) -> Reader | None:
        with self._gate:
            if self._shown is None:
                return None
            reader = self._idle.pop() if self._idle else Reader(self._release)
            reader.begin(self._shown)
            self._active.append(reader)
            return reader

    def _give_back(self, reader: Reader) -> None:
        reader.done()  # a commit may wait for it, and holds the gate
        with self._gate:  # a commit must not preserve what is being let go of
            self._active.remove(reader)
            if self._shown is not None and len(self._idle) < KEPT_READERS:
                reader.end()
                self._idle.append(reader)
            else:
                reader.close()

    # -- what is installed ---------------------------------------------------------------------

    @property
    def installed(self) -> bool:
        """Whether there is code."""
        return self._code is not None

    @property
    def module_hash(self) -> bytes | None:
        """SHA-256 of the module as it was uploaded."""
        return None if self._code is None else self._code.prepared.hash

    @property
    def metadata(self) -> dict[str, bytes]:
        """Custom sections that everybody may read, by name."""
        return {} if self._code is None else self._code.prepared.metadata

    @property
    def private_metadata(self) -> dict[str, bytes]:
        """Custom sections for controllers only, by name."""
        return {} if self._code is None else self._code.prepared.private_metadata

    @property
    def custom_bytes(self) -> int:
        """Bytes of the custom sections and their names."""
        both = self.metadata | self.private_metadata
        return sum(len(name.encode()) + len(content) for name, content in both.items())

    @property
    def exports(self) -> frozenset[str]:
        """Exported functions, for example `canister_query greet`."""
        return frozenset() if self._code is None else self._code.prepared.exports

    @property
    def heap_bytes(self) -> int:
        """Committed size of the heap."""
        return 0 if self._code is None else self._code.heap_bytes

    @property
    def stable_bytes(self) -> int:
        """Committed size of the stable memory."""
        return self._folder.record.stable_pages << 16

    # -- messages ------------------------------------------------------------------------------

    def execute(self, message: Message, seal: Seal | None = None) -> Outcome:
        """Run a message, and commit what it did unless it trapped or is a query."""
        self._recover()
        code = self._code
        canister = message.environment.canister_id
        if code is None:
            return Outcome(trap=errors.no_module().reject(canister))
        entry = entry_of(code.prepared, message)
        if isinstance(entry, Outcome):
            return entry
        before = self._folder.record.globals
        try:
            outcome = self._run(code, message, entry, limit_of(self._release, message))
            if outcome.trap is not None or not keeps_writes(message):
                self._undo(code, before)
            else:
                self._commit(code, seal(outcome) if seal is not None else b"")
        except BaseException:
            if not self._folder.unfinished:
                self._undo(code, before)
            raise
        return outcome

    def _run(self, code: _Code, message: Message, entry: str, limit: int) -> Outcome:
        """Run one entry point; neither commits nor undoes."""

        def live() -> Instance:
            instance = self._instance(code)
            if self._release.pages.heap_counts:
                instance.heap.watch()
            return instance

        def check(instance: Instance) -> None:
            if keeps_writes(message):
                self._check_growth(code, instance, message)

        pages = meter(self._release, message)
        return run(self._api, live, message, entry, limit, pages, check)

    def _check_growth(self, code: _Code, instance: Instance, message: Message) -> None:
        """Raise a trap if the memories have become larger than they may or can be paid for."""
        environment, size = message.environment, instance.heap.size
        limit = environment.memory_limit
        if limit and size > limit and message.kind in _LIMITED:
            raise errors.memory_limit(limit, size)
        grown = size - code.heap_bytes + self._stable.grown
        paid = max(0, grown - environment.spare_memory)
        if paid > 0 and code.number == self._folder.record.module:
            frozen = environment.frozen + paid * environment.frozen_gib // GIB
            if frozen > self._api.balance:
                raise errors.growth_unpaid(grown, frozen - self._api.balance)

    def _instance(self, code: _Code) -> Instance:
        """The live instance; after a rollback that needed it, a fresh one."""
        if self._binding is None:
            self._binding = Binding(self._api, self._release)
        if code.instance is None:
            instance = Instance(
                code.module,
                code.prepared,
                self._binding,
                self._api,
                (code.heap_fd, code.heap_bytes),
            )
            if code.number == self._folder.record.module:
                instance.restore_globals(self._folder.record.globals)
            code.instance = instance
        self._api.instance = code.instance
        self._api.stable = self._stable
        return code.instance

    # -- installing ----------------------------------------------------------------------------

    def install(
        self,
        wasm: bytes,
        arg: bytes,
        caller: bytes,
        environment: Environment,
        mode: Mode,
        skip_pre_upgrade: bool = False,
        seal: Seal | None = None,
    ) -> Outcome:
        """Install code; on a trap everything is as before. Raises `InvalidModule`."""
        self._recover()
        old = self._code
        canister = environment.canister_id
        if mode == "install" and old is not None:
            return Outcome(trap=errors.not_empty(canister))
        if mode == "upgrade" and old is None:
            return Outcome(trap=errors.no_module().reject(canister))
        loaded = load(wasm, self._release)
        number = self._folder.next_number()
        new = _Code(number, loaded, self._folder.open("heap", number, 0), 0)
        stable, stable_number = self._stable, self._stable_number
        message = Message(Kind.PRE_UPGRADE, environment, caller=caller)
        total = Outcome()
        try:
            if old is not None and mode == "upgrade" and not skip_pre_upgrade:
                self._phase(total, old, message)
            if mode != "upgrade":
                self._stable_number = number
                self._stable = self._open_stable(number, 0)
            if new.prepared.has_start:
                self._phase(total, new, replace(message, kind=Kind.START))
            kind = Kind.POST_UPGRADE if mode == "upgrade" else Kind.INIT
            self._phase(total, new, replace(message, kind=kind, arg=arg))
            if total.trap is None:
                self._instance(new)  # which no step has made if there is none
                self._folder.write_module(number, wasm)
                with self._gate:
                    self._commit(new, seal(total) if seal is not None else b"")
                    self._code = new
        except Trap as trap:
            total.trap = trap.reject(canister)
        except BaseException:
            if not self._folder.unfinished:
                self._abandon(new, old, stable, stable_number)
            raise
        if total.trap is not None:
            self._abandon(new, old, stable, stable_number)
            return total
        self._code = new
        if old is not None:
            old.close()
        if stable is not self._stable:
            stable.release()
            os.close(stable.fd)
        self._folder.clean()
        return total

    def _phase(self, total: Outcome, code: _Code, message: Message) -> None:
        """Run one step of an installation, unless an earlier one has failed."""
        entry = metering.START if message.kind is Kind.START else message.kind.value
        there = message.kind is Kind.START or entry in code.prepared.exports
        if total.trap is not None or not there:
            return
        limit = self._release.limits.install - total.instructions
        outcome = self._run(code, message, entry, limit)
        if message.kind is Kind.START and code.instance is not None:
            heap = code.instance.heap  # of new code: its file is dropped if a later step fails
            heap.commit(heap.stage())
        total.instructions += outcome.instructions
        total.page_instructions += outcome.page_instructions
        total.logs += outcome.logs
        total.trap = outcome.trap
        total.cycles_burned += outcome.cycles_burned
        if outcome.certified_data is not None:
            total.certified_data = outcome.certified_data
        if outcome.timer is not None:
            total.timer = outcome.timer

    def _abandon(
        self, new: _Code, old: _Code | None, stable: StableMemory, stable_number: int
    ) -> None:
        """Undo an installation that failed."""
        new.close()
        if stable is not self._stable:
            self._stable.release()
            os.close(self._stable.fd)
        self._stable, self._stable_number = stable, stable_number
        if old is not None:
            self._undo(old, self._folder.record.globals)
        else:
            stable.rollback()
        self._clean()

    # -- snapshots -----------------------------------------------------------------------------

    @property
    def globals(self) -> tuple[SavedGlobal, ...]:
        """Committed values of the mutable globals."""
        return self._folder.record.globals

    def digest(self) -> bytes:
        """Return a hash of all that is committed: code, globals, heap and stable memory."""
        record = self._folder.record
        hasher = hashlib.sha256(repr((record.globals, record.heap_bytes)).encode())
        hasher.update(self.module_hash or b"")
        heap = (self._code.heap_fd, record.heap_bytes) if self._code is not None else (-1, 0)
        for fd, size in (heap, (self._stable.fd, self._stable.size)):
            for at in range(0, size, _HASHED_AT_ONCE):
                hasher.update(os.pread(fd, min(_HASHED_AT_ONCE, size - at), at))
        return hasher.digest()

    def copy_to(self, folder: Path) -> None:
        """Copy module, heap and stable memory, as they are committed, into a folder."""
        self._recover()
        code = self._code
        if code is None:
            raise ValueError("there is no code to copy")
        (folder / "module").write_bytes(self._folder.read_module())
        for name, source, size in (
            ("heap", code.heap_fd, code.heap_bytes),
            ("stable", self._stable.fd, self._stable.size),
        ):
            with (folder / name).open("wb") as file:
                copy_bytes(source, file.fileno(), size)

    def adopt(
        self,
        folder: Path,
        heap_bytes: int,
        stable_bytes: int,
        values: tuple[tuple[int, bytes], ...],
    ) -> None:
        """Replace code and memories by what `copy_to` has written; all of it or nothing.

        Raises `InvalidModule`, and `DamagedState` where the parts don't fit together.
        """
        self._recover()
        upload = (folder / "module").read_bytes()
        loaded = load(upload, self._release)
        indices = loaded.prepared.metered.saved_globals
        kinds = loaded.prepared.metered.global_kinds
        if tuple(kind for kind, _ in values) != kinds:
            raise DamagedState("its globals are not those of its module")
        number = max(self._folder.next_number(), self._stable_number + 1)
        self._folder.write_module(number, upload)
        for name in ("heap", "stable"):
            copy_file(folder / name, self._folder.path / f"{name}-{number}")
        record = Record(
            module=number,
            stable=number,
            heap_bytes=heap_bytes,
            stable_pages=stable_bytes >> 16,
            globals=tuple((i, *value) for i, value in zip(indices, values, strict=True)),
        )
        self._folder.begin(record, [])
        self._folder.finish()
        self._let_go()
        self._open()
        self._clean()

    def uninstall(self) -> None:
        """Remove code, heap and stable memory."""
        number = self._folder.next_number()
        self._folder.begin(Record(), [])
        self._folder.finish()
        self._let_go()
        self._stable_number = number
        self._stable = self._open_stable(number, 0)
        self._clean()

    # -- keeping -------------------------------------------------------------------------------

    @property
    def commit(self) -> int:
        """The number of the last commit."""
        return self._folder.record.number

    @property
    def note(self) -> bytes:
        """What was noted down with the last commit, if that was in an earlier process."""
        return self._folder.note

    def settle(self) -> None:
        """Let go of the last commit's note."""
        self._folder.settle()

    def _commit(self, code: _Code, note: bytes = b"") -> None:
        """Make what the message did the state to return to: the one place where that happens."""
        instance = self._instance(code)
        heap = instance.heap
        changed = heap.stage()
        overwritten = [Piece(HEAP, a, heap.base + a, b - a) for a, b in changed]
        overwritten += [Piece(STABLE, *change) for change in self._stable.changes()]
        record = Record(
            module=code.number,
            stable=self._stable_number,
            heap_bytes=heap.size,
            stable_pages=self._stable.pages,
            globals=instance.save_globals(),
        )
        if self._sync:
            os.fsync(code.heap_fd)
            os.fsync(self._stable.fd)
        with self._gate:
            for reader in list(self._active):
                reader.preserve(code.number, changed, self._stable.changes())
            self._shown = None  # should the disk be full
            self._folder.begin(record, overwritten, note)
            heap.commit(changed)
            self._stable.commit()
            self._folder.finish()
            code.heap_bytes = heap.size
            self._show(code)
        if not note:
            self._folder.settle()
        if code.prepared.metered.forgets:
            code.drop_instance()

    def _recover(self) -> None:
        """Finish a commit that the system cut off, for example when the disk was full."""
        if self._folder.unfinished:
            self._folder.redo()
            self._let_go()
            self._open()

    def _let_go(self) -> None:
        """Unmap and close everything but the folder."""
        with self._gate:
            self._shown = None
            while self._idle:
                self._idle.pop().close()
        if self._code is not None:
            self._code.close()
            self._code = None
        self._stable.release()
        if self._stable.fd >= 0:
            os.close(self._stable.fd)
            self._stable.fd = -1

    def _undo(self, code: _Code, saved: tuple[tuple[int, int, bytes], ...]) -> None:
        """Return to the committed state, on the same instance where that is possible."""
        self._stable.rollback()
        instance = code.instance
        if instance is None:
            return
        if code.prepared.metered.forgets or not instance.heap.rollback():
            code.drop_instance()
        else:
            instance.restore_globals(saved)

    def _open_stable(self, number: int, pages: int) -> StableMemory:
        size = pages << 16
        return StableMemory(self._folder.open("stable", number, size), pages)

    def _clean(self) -> None:
        self._folder.clean(also=f"stable-{self._stable_number}")

    def close(self) -> None:
        """Let go of memory and files; what is committed stays."""
        for fd in (self._code.heap_fd if self._code is not None else -1, self._stable.fd):
            if fd >= 0:
                os.fsync(fd)
        self._let_go()
        self._folder.close()

    def delete(self) -> None:
        """Remove the canister's folder."""
        self.close()
        self._folder.delete()

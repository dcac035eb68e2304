"""The canister table: what the subnet knows of its canisters, and their files.

Everything here belongs to the worker's thread, but for `views`, which others read. The worker holds
`lock` whenever it may change anything, so not while a canister's code runs: who holds the lock
may look at everything.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from icgpt.principal import to_text
from icgpt.replica import chunks, fees
from icgpt.replica.execution import Canister, InvalidModule
from icgpt.replica.folder import DamagedState, has_record
from icgpt.replica.records import CanisterRecord
from icgpt.replica.state import ADVICE, StateError


@dataclass(frozen=True)
class View:
    """What other threads may know of a canister; replaced as a whole."""

    controllers: tuple[bytes, ...]
    module_hash: bytes | None
    metadata: dict[str, bytes]
    private_metadata: dict[str, bytes]
    certified_data: bytes
    inspects: bool
    created: int = 0  # when, in ns; 0 where that is not known
    deployed: int = 0  # when there was put what is there now


@dataclass
class Hosted:
    """A canister of this subnet: what the subnet knows of it, and its code."""

    record: CanisterRecord
    code: Canister
    applied: int = 0  # number of the last commit whose other effects show
    prepaid: int = 0  # cycles taken for the message that runs, as much as it could cost

    @property
    def balance(self) -> int:
        """The cycles, as they were before the message that runs."""
        return self.record.cycles + self.prepaid

    @property
    def memory(self) -> int:
        """Bytes that the canister pays storage for."""
        return max(self.used_memory, self.record.settings.memory_allocation)

    @property
    def used_memory(self) -> int:
        """Bytes that the canister really takes."""
        chunks = sum(self.record.chunks.values())
        code = self.code.heap_bytes + self.code.stable_bytes + self.record.module_bytes
        return code + chunks + self.snapshot_bytes

    @property
    def snapshot_bytes(self) -> int:
        """Bytes of all snapshots."""
        return sum(snapshot.size for snapshot in self.record.snapshots.values())

    @property
    def idle_per_second(self) -> int:
        """Cycles that the canister costs by being there."""
        return fees.idle_per_second(self.memory, self.record.settings.compute_allocation)

    @property
    def available_cycles(self) -> int:
        """The balance above the freezing threshold."""
        return self.record.cycles - self.frozen_cycles

    @property
    def frozen_cycles(self) -> int:
        """What the freezing threshold holds back."""
        return self.idle_per_second * self.record.settings.freezing_threshold


class Table:
    """The canisters by their ids."""

    def __init__(self, folder: Path, records: list[CanisterRecord], *, sync: bool) -> None:
        self.folder = folder
        self._sync = sync
        self.lock = threading.Lock()
        self.hosted: dict[bytes, Hosted] = {}
        self.views: dict[bytes, View] = {}
        self.revision = 0  # counts the changes to `views`
        self.touched: dict[bytes, None] = {}  # canisters changed since last written down
        self._discarded: list[Canister] = []
        self._discarded_folders: list[Path] = []
        for record in records:
            self._reopen(record)
        self._sweep()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let others look while code runs; for the worker, which holds the lock."""
        self.lock.release()
        try:
            yield
        finally:
            self.lock.acquire()

    def host(self, record: CanisterRecord) -> Hosted:
        """Add a canister, opening its code if there is some on disk."""
        self.discard()  # of which one may have had the same id
        folder = self.folder / "canisters" / to_text(record.id)
        folder.mkdir(parents=True, exist_ok=True)
        hosted = self.hosted[record.id] = Hosted(record, Canister(folder, sync=self._sync))
        self.touched[record.id] = None
        self.publish(hosted)
        hosted.applied = hosted.code.commit
        return hosted

    def _reopen(self, record: CanisterRecord) -> None:
        """Add a canister of the last run; raises StateError rather than lose its code."""
        name = to_text(record.id)
        folder = self.folder / "canisters" / name
        if record.module_bytes and not has_record(folder):
            raise StateError(f"the code of canister {name} is not in {folder}; {ADVICE}")
        try:
            self.host(record)
        except (DamagedState, InvalidModule, OSError) as error:
            text = f"canister {name} can't be opened from {folder} ({error}); {ADVICE}"
            raise StateError(text) from error
        chunks.forget_missing(self.folder / "chunks" / name, record)

    def _sweep(self) -> None:
        """Remove the folders of canisters that were deleted, or never written down, in a kill."""
        known = {to_text(canister) for canister in self.hosted}
        for kind in ("canisters", "chunks", "snapshots"):
            for path in (self.folder / kind).glob("*"):
                if path.name not in known and path.is_dir():
                    shutil.rmtree(path)

        for canister, hosted in self.hosted.items():
            wanted = {snapshot.hex() for snapshot in hosted.record.snapshots}
            for path in (self.folder / "snapshots" / to_text(canister)).glob("*"):
                if path.name not in wanted:
                    shutil.rmtree(path)

    def publish(self, hosted: Hosted) -> None:
        """Let the other threads see what has changed about a canister."""
        code, record = hosted.code, hosted.record
        self.views[record.id] = View(
            record.settings.controllers,
            code.module_hash if code.installed else None,
            dict(code.metadata) if code.installed else {},
            dict(code.private_metadata) if code.installed else {},
            record.certified_data,
            code.installed and "canister_inspect_message" in code.exports,
            record.created,
            record.deployed if code.installed else 0,
        )
        self.revision += 1

    def remove(self, hosted: Hosted) -> None:
        """Take a canister out of the table; its files go with `discard`."""
        del self.hosted[hosted.record.id]
        self.touched[hosted.record.id] = None
        self.views.pop(hosted.record.id, None)
        self.revision += 1
        self._discarded.append(hosted.code)
        self.discard_folder(self.folder / "snapshots" / to_text(hosted.record.id))

    def discard_folder(self, folder: Path) -> None:
        """Have a folder removed with the next `discard`."""
        self._discarded_folders.append(folder)

    def discard(self) -> None:
        """Remove the files of what was deleted, once the state on disk names it no more."""
        while self._discarded:
            self._discarded.pop().delete()
        while self._discarded_folders:
            shutil.rmtree(self._discarded_folders.pop(), ignore_errors=True)

    def charge_idle(self, hosted: Hosted, now: int) -> None:
        """Charge for storage and allocations since the last time."""
        record = hosted.record
        self.touched[record.id] = None
        seconds = (now - record.charged_until) // 10**9
        if seconds > 0:
            record.cycles = max(0, record.cycles - seconds * hosted.idle_per_second)
            record.charged_until += seconds * 10**9

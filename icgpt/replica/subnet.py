"""The subnet: one worker thread that runs everything, and the doors through which others reach it.

Users' messages come in through a thread-safe queue. The worker takes what has come in, and runs
one task of the router's queue at a time: a call, a response, a timer or a heartbeat. Queries run
beside it (see `querying`). What is due by the clock (timers, heartbeats, charges for
storage) is looked after between messages. What a message has changed is written into the log before
anybody hears of it, and messages are written there before they count as let in.
"""

from __future__ import annotations

import fcntl
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import IO

from icgpt.candid import unsigned_leb128
from icgpt.principal import MANAGEMENT, to_text
from icgpt.replica import certification, rejects, state
from icgpt.replica.certification import Content, Keys, Signed, Tree
from icgpt.replica.history import History
from icgpt.replica.ingress import Request
from icgpt.replica.log import KEPT, Log
from icgpt.replica.management import Management, canister_id
from icgpt.replica.messages import Kind
from icgpt.replica.native.table import Natives
from icgpt.replica.querying import Answer, Queries
from icgpt.replica.records import Author, Entry, Everything, MessageRecord, Origin, Step, Task
from icgpt.replica.recovery import recover
from icgpt.replica.rejects import RejectError
from icgpt.replica.routing import Router
from icgpt.replica.signatures import Verifier

_LOG = logging.getLogger(__name__)
MAX_PENDING = 2_000  # users' messages in the queue
LOCK_ATTEMPTS = 25
HEARTBEAT_SECONDS = 1.0
MAX_PENDING_BYTES = 256 << 20  # and of their arguments
STUMBLE_SECONDS = 0.1
RETRY_SECONDS = 1.0
CERTIFICATE_SECONDS = 1.0  # for how long an unchanged state is shown with the same signature
CHARGE_SECONDS = 30.0
# Answers are announced together, so that a burst of short messages shares one certificate.
ANNOUNCE_SECONDS = 0.01
RANGE = (bytes(8) + b"\x01\x01", b"\xff" * 8 + b"\x01\x01")


class InUseError(Exception):
    """Another process works on the state folder."""


class Subnet:
    """A local network's one subnet; see the module's text."""

    def __init__(
        self,
        folder: Path,
        announce: Callable[[list[bytes]], None],
        *,
        welcome: bool = True,
        sync: bool = False,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_file = _lock(folder)
        self._folder = folder
        self._announce = announce
        self._sync = sync  # wait for the disk before anything counts as done
        try:
            self._load(welcome=welcome)
        except BaseException:
            self._lock_file.close()
            raise
        self._inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._stopping = False
        now = time.monotonic()
        self._next_heartbeat = self._retry = now
        self._next_charge = now + CHARGE_SECONDS
        self._announced = now
        self._signing = threading.Lock()
        self._signed: tuple[tuple[int, int], float, Signed] | None = None
        self._canister_tree: tuple[int, Tree] = (-1, certification.EMPTY)
        self._fixed = self._fixed_content()
        self._worker = threading.Thread(target=self._work, name="icgpt-subnet")

    def _load(self, *, welcome: bool) -> None:
        """Take up the state on disk; raises StateError if it can't be taken up whole."""
        folder = self._folder
        self._store = state.Store(folder / "subnet")
        found = self._store.load(Everything)
        if found is None and any((folder / "canisters").glob("*")):
            text = f"{folder} holds canisters of another version; {state.ADVICE}"
            raise state.StateError(text)
        everything = found or Everything()
        self._log = Log(folder / "subnet.log", sync=self._sync)
        try:
            self._log.replay(everything)
            try:
                self.keys = Keys.open(folder / "secret")
            except ValueError as error:
                raise state.StateError(str(error)) from error
            self.subnet_id, self.root_key = self.keys.subnet_id, self.keys.root_key
            self.verifier = Verifier(self.root_key)
            self.history = History(everything.entries)
            self.router = Router(folder, everything, self.history, self.keys, sync=self._sync)
        except BaseException:
            self._log.close()
            raise
        self.management = Management(self.router)
        self.natives = Natives(self.router, self.management, welcome=welcome)
        self._let_in: dict[bytes, Task] = {}  # written down, and not in the queue so far
        for task in everything.inbox:
            self.router.induct(task, task.payer)
        recover(self.router, self.management)
        self._queries = Queries(self.router, self._data_certificate, self._system)
        self.save()

    def start(self) -> None:
        """Start the worker."""
        self._worker.start()

    def stop(self) -> None:
        """End after the message at hand, and write everything to disk."""
        self._stopping = True
        self._inbox.put(None)
        if self._worker.is_alive():
            self._worker.join()
        self._queries.close()
        self.save()
        for hosted in self.router.hosted.values():
            hosted.code.close()
        self._log.close()
        self._store.close()
        self._lock_file.close()

    @property
    def default_effective_canister_id(self) -> bytes:
        """A canister id of this network, for calls that are about no canister yet."""
        return canister_id(0)

    # --- doors, for any thread

    def check(self, request: Request) -> bytes:
        """Raise RejectError if a message of this kind can't be let in; return its subject."""
        waiting = sum(len(task.arg) for task in list(self._let_in.values()))
        if self.history.pending >= MAX_PENDING or waiting >= MAX_PENDING_BYTES:
            raise RejectError(rejects.reject(204, "The network has too many messages waiting."))
        if request.canister_id == MANAGEMENT:
            return self.management.check_ingress(request.sender, request.method, request.arg)
        if request.canister_id in self.natives:
            return request.canister_id
        refusal = self.router.closed(request.canister_id)
        if refusal is not None:
            raise RejectError(refusal)
        return request.canister_id

    def inspects(self, canister: bytes) -> bool:
        """Tell whether the canister wants to see messages before they are let in."""
        view = self.router.views.get(canister)
        return view is not None and view.inspects

    def submit(self, request: Request, payer: bytes) -> None:
        """Let a message in, unless it is known already."""
        entry = Entry(request.id, request.sender, request.canister_id, request.expiry)
        task = Task(
            "call",
            request.canister_id,
            Origin(request.id),
            request.sender,
            request.method,
            request.arg,
            expiry=request.expiry,
            root=request.id,
            payer=payer,
        )
        with self._log.lock:  # in the log and the inbox, messages are in the same order
            if not self.history.add(entry):
                return
            self._let_in[request.id] = task
            self._write(Step(let_in=task, entries=[entry]))
            self._inbox.put(task)

    def ask(self, kind: Kind, request: Request) -> Future[Answer]:
        """Have a query run, or `canister_inspect_message`."""
        if request.canister_id != MANAGEMENT and request.canister_id not in self.natives:
            return self._queries.ask(kind, request)
        return self._queries.ask_system(request)

    def version(self) -> tuple[int, int]:
        """Return a value that changes whenever the state tree does, but for the time in it."""
        return self.router.revision, self.history.changes

    def messages(self, last: int) -> list[MessageRecord]:
        """Return the last of the users' messages, the newest last."""
        return list(self.router.messages.values())[-last:] if last > 0 else []

    def tree(self, now: int) -> Tree:
        """Return the state tree as it is now."""
        revision, canisters = self._canister_tree
        if revision != self.router.revision:
            revision = self.router.revision
            canisters = self._canisters()
            self._canister_tree = (revision, canisters)
        content: dict[bytes, Tree | bytes | Content] = {
            **self._fixed,
            b"canister": canisters,
            b"request_status": self.history.tree(),
            b"time": unsigned_leb128(now),
        }
        return certification.labeled(content)

    def signed(self) -> Signed:
        """Return the state with a signature, one for all who ask while nothing changes."""
        with self._signing:
            version, now = self.version(), time.monotonic()
            if self._signed is not None:
                known, since, signed = self._signed
                if known == version and now - since < CERTIFICATE_SECONDS:
                    return signed
            tree = self.tree(time.time_ns())
            signed = Signed(tree, self.keys.sign_root(tree.digest))
            self._signed = (version, now, signed)
            return signed

    def _fixed_content(self) -> dict[bytes, Tree]:
        ranges = certification.cbor([list(RANGE)])
        node: Content = {self.keys.node_id: {b"public_key": self.keys.node_key}}
        subnet: Content = {
            b"canister_ranges": ranges,
            b"node": node,
            b"public_key": self.root_key,
            b"type": b"application",
        }
        return {
            b"api_boundary_nodes": certification.EMPTY,
            b"canister_ranges": certification.labeled({self.subnet_id: {RANGE[0]: ranges}}),
            b"subnet": certification.labeled({self.subnet_id: subnet}),
        }

    def _canisters(self) -> Tree:
        content: dict[bytes, Content] = {}
        for canister, view in list(self.router.views.items()):
            entry: dict[bytes, Tree | bytes | Content] = {
                b"certified_data": view.certified_data,
                b"controllers": certification.cbor(list(view.controllers)),
            }
            if view.created:
                entry[b"canister_creation_timestamp"] = unsigned_leb128(view.created)
            if view.deployed:
                entry[b"last_install_timestamp"] = unsigned_leb128(view.deployed)
            if view.module_hash is not None:
                entry[b"module_hash"] = view.module_hash
                sections = view.private_metadata | view.metadata
                entry[b"metadata"] = {name.encode(): data for name, data in sections.items()}
            content[canister] = entry
        return certification.labeled(content)

    # --- the worker

    def _work(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception:  # noqa: BLE001 - such as a full disk; the network has to stay up
                _LOG.exception("the worker stumbled")
                time.sleep(STUMBLE_SECONDS)
        self._tell(force=True)

    def _turn(self) -> None:
        """Do what is due, then one thing that came in, and one task of the queue."""
        with self.router.lock:
            self._look_at_clock()
            idle = not self.router.queue
            if idle:
                self._tell(force=True)
        try:
            item = self._inbox.get(timeout=self._wait()) if idle else self._inbox.get_nowait()
        except queue.Empty:
            item = None
        with self.router.lock:
            if item is not None:
                del self._let_in[item.origin.request_id]
                self.router.induct(item, item.payer)
            if self.router.queue:
                self._run(self.router.queue.popleft())
            self.persist()
            self._tell(force=False)

    def _wait(self) -> float:
        """Return for how long nothing is due by the clock."""
        due = self._next_charge
        hosted = self.router.hosted.values()
        if any("canister_heartbeat" in h.code.exports for h in hosted if h.code.installed):
            due = min(due, self._next_heartbeat)
        wait = due - time.monotonic()
        if self._log.broken:
            wait = min(wait, RETRY_SECONDS)
        timers = [h.record.timer for h in hosted if h.record.timer]
        if timers:
            wait = min(wait, (min(timers) - time.time_ns()) / 1e9)
        if self.router.deadlines:
            wait = min(wait, (min(self.router.deadlines.values()) - time.time_ns()) / 1e9)
        # A timer that is due but can't run (a stopped canister's) must not make this loop spin.
        return max(wait, 0.0 if self._timers_due() else 0.01)

    def _timers_due(self) -> list[bytes]:
        now = time.time_ns()
        return [
            canister
            for canister, hosted in self.router.hosted.items()
            if 0 < hosted.record.timer <= now and hosted.record.status == "running"
        ]

    def _look_at_clock(self) -> None:
        for canister in self._timers_due():
            self.router.hosted[canister].record.timer = 0
            self.router.touched[canister] = None
            self.router.queue.append(Task("timer", canister))
        self.router.expire(time.time_ns())
        now = time.monotonic()
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + HEARTBEAT_SECONDS
            for canister, hosted in self.router.hosted.items():
                if hosted.code.installed and "canister_heartbeat" in hosted.code.exports:
                    self.router.queue.append(Task("heartbeat", canister))
        if now >= self._next_charge:
            self._next_charge = now + CHARGE_SECONDS
            for hosted in self.router.hosted.values():
                self.router.charge_idle(hosted, time.time_ns())
                if not hosted.record.cycles and hosted.code.installed:
                    self.management.strip(hosted, Author(hosted.record.id, is_canister=True))
            self.router.expire_stops(time.time_ns())
            self.history.forget(time.time_ns())

    def _run(self, task: Task) -> None:
        try:
            self._dispatch(task)
        except Exception:  # noqa: BLE001 - one message's trouble must not end the network
            _LOG.exception("a %s of %s failed", task.kind, to_text(task.canister))
            if task.kind == "call":
                reject = rejects.engine_failure(task.canister)
                self.router.respond(task.origin, b"", reject, task.cycles, task.root)

    def _dispatch(self, task: Task) -> None:
        if task.kind == "response":
            self.router.run_response(task)
        elif task.kind != "call":
            self.router.run_system(task)
        elif task.deadline and task.deadline <= time.time_ns():
            reject = rejects.deadline_expired()
            self.router.respond(task.origin, b"", reject, task.cycles, task.root)
        elif task.expiry and task.expiry < time.time_ns():
            reject = rejects.expired(task.origin.request_id)
            self.router.respond(task.origin, b"", reject, task.cycles, task.root)
        else:
            if task.origin.request_id:
                self.history.processing(task.origin.request_id)
            if task.canister == MANAGEMENT:
                self.management.call(task)
            elif task.canister in self.natives:
                self.router.ledgers_changed = True
                self.natives.call(task)
            else:
                self.router.run_call(task)

    def _system(self, request: Request) -> Answer | None:
        """Answer a query of the management or a system canister, for any thread; else None."""
        canister, method = request.canister_id, request.method
        if canister != MANAGEMENT and canister not in self.natives:
            return None
        with self.router.lock:
            try:
                if canister == MANAGEMENT:
                    reply = self.management.query(request.sender, method, request.arg)
                else:
                    reply = self.natives.query(canister, request.sender, method, request.arg)
            except RejectError as error:
                return Answer(reject=error.reject)
        return Answer(reply)

    def _data_certificate(self, canister: bytes) -> bytes | None:
        """Return the proof of the certified data."""
        return self.signed().certificate([(b"canister", canister, b"certified_data")])

    def _tell(self, *, force: bool) -> None:
        """Announce the requests that have been answered, once what they did is on disk."""
        if not self.router.finished:
            return
        now = time.monotonic()
        if force or now - self._announced >= ANNOUNCE_SECONDS:
            self.persist()
            self._announced = now
            finished, self.router.finished = self.router.finished, []
            self._announce(finished)

    def persist(self) -> None:
        """Write down what has changed; everything, when the log has grown long."""
        router = self.router
        if self._log.broken:
            if time.monotonic() >= self._retry:
                self._try_save()
            return
        if not router.changed and not router.queue.changed and not self.history.changed:
            return
        self._write(router.step())
        router.settle()
        if self._log.size > max(KEPT, 2 * self._store.size):
            self._try_save()

    def _write(self, step: Step) -> None:
        try:
            self._log.append(step)
        except OSError:
            self._complain()

    def _complain(self) -> None:
        _LOG.exception("the network's state could not be written; a kill would lose it")
        self._retry = time.monotonic() + RETRY_SECONDS

    def save(self) -> None:
        """Write the whole state to disk, and begin the log anew."""
        router = self.router
        with self._log.lock:
            router.step()  # which is part of what is written now
            everything = router.everything()
            everything.inbox = list(self._let_in.values())
            everything.sequence = self._log.sequence
            self._store.save(everything, sync=self._sync)
            self._log.clear()
        router.settle()

    def _try_save(self) -> None:
        """Save, or say in the log why not and try again later: the network goes on meanwhile."""
        try:
            self.save()
        except OSError:
            self._log.broken = True
            self._complain()


def _lock(folder: Path) -> IO[bytes]:
    """Hold the folder for this process alone, until the returned file is closed."""
    stream = (folder / "lock").open("wb")
    # Whoever asks whether the folder is locked holds the lock for a moment: so try again.
    for attempt in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return stream
        except OSError as error:
            if attempt == LOCK_ATTEMPTS - 1:
                stream.close()
                raise InUseError(f"another process runs the network in {folder}") from error
            time.sleep(0.02)
    raise InUseError(f"{folder} could not be locked")

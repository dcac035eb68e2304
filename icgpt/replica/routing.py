"""The canister table and the way of messages through it: calls, responses, timers, heartbeats.

One message runs at a time, on the subnet's worker thread, and everything here belongs to that
thread but for `views`, which others read. A message's outcome is applied when it succeeded; after
a trap the execution has rolled back already, and only what the platform keeps is kept: the
instructions' price and the log.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from icgpt.principal import MANAGEMENT, to_text
from icgpt.replica import chunks, fees, rejects
from icgpt.replica.certification import Keys
from icgpt.replica.execution import Canister, InvalidModule
from icgpt.replica.folder import DamagedState, has_record
from icgpt.replica.history import History
from icgpt.replica.messages import Environment, Kind, Message, Outcome, OutgoingCall, Reject
from icgpt.replica.records import (
    CallContext,
    CanisterRecord,
    Everything,
    MessageRecord,
    Origin,
    PendingCall,
    Task,
)
from icgpt.replica.state import ADVICE, StateError

_LOG = logging.getLogger(__name__)
KEPT_MESSAGES = 1_000
EMPTY_REPLY = b"DIDL\x00\x00"
_STATUS = {"running": 1, "stopping": 2, "stopped": 3}


@dataclass(frozen=True)
class View:
    """What other threads may know of a canister; replaced as a whole."""

    controllers: tuple[bytes, ...]
    module_hash: bytes | None
    metadata: dict[str, bytes]
    private_metadata: dict[str, bytes]
    certified_data: bytes
    inspects: bool


@dataclass
class Hosted:
    """A canister of this subnet: what the subnet knows of it, and its code."""

    record: CanisterRecord
    code: Canister

    @property
    def memory(self) -> int:
        """Bytes that the canister pays storage for."""
        chunks = sum(self.record.chunks.values())
        code = self.code.heap_bytes + self.code.stable_bytes + self.record.module_bytes
        used = code + chunks + self.snapshot_bytes
        return max(used, self.record.settings.memory_allocation)

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
        reserve = self.idle_per_second * self.record.settings.freezing_threshold
        return self.record.cycles - reserve


class Router:
    """Runs tasks; see the module's text."""

    def __init__(
        self,
        folder: Path,
        state: Everything,
        history: History,
        messages: list[MessageRecord],
        keys: Keys,
    ) -> None:
        self.folder = folder
        self.history = history
        self.ledgers = state.ledgers
        self.subnet_id = keys.subnet_id
        self.root_key = keys.root_key
        self.next_canister = state.next_canister
        self._next_id = state.next_id
        self.queue: deque[Task] = deque(state.queue)
        self.messages: deque[MessageRecord] = deque(messages, maxlen=KEPT_MESSAGES)
        self._by_root = {record.request_id: record for record in self.messages}
        self.hosted: dict[bytes, Hosted] = {}
        self.views: dict[bytes, View] = {}
        self.revision = 0  # counts the changes to `views`
        self.finished: list[bytes] = []  # requests answered since the server last looked
        self._now = 0
        self._discarded: list[Canister] = []
        self._discarded_folders: list[Path] = []
        for record in state.canisters:
            self._reopen(record)
        self._sweep()

    # --- the canister table

    def host(self, record: CanisterRecord) -> Hosted:
        """Add a canister, opening its code if there is some on disk."""
        self.discard()  # of which one may have had the same id
        folder = self.folder / "canisters" / to_text(record.id)
        folder.mkdir(parents=True, exist_ok=True)
        hosted = self.hosted[record.id] = Hosted(record, Canister(folder))
        self.publish(hosted)
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
        )
        self.revision += 1

    def remove(self, hosted: Hosted) -> None:
        """Take a canister out of the table; its files go with `discard`."""
        del self.hosted[hosted.record.id]
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

    def state(self, *, waiting: bool) -> Everything:
        """Return what has to be written to disk, users' messages that wait only if asked for."""
        records = [hosted.record for hosted in self.hosted.values()]
        tasks = [task for task in self.queue if waiting or not task.origin.request_id]
        running = self.history.running()
        return Everything(self.next_canister, self._next_id, records, tasks, running, self.ledgers)

    def now(self) -> int:
        """Return the time in nanoseconds; it never goes back and never stands still."""
        self._now = max(time.time_ns(), self._now + 1)
        return self._now

    def charge_idle(self, hosted: Hosted, now: int) -> None:
        """Charge for storage and allocations since the last time."""
        record = hosted.record
        seconds = (now - record.charged_until) // 10**9
        if seconds > 0:
            record.cycles = max(0, record.cycles - seconds * hosted.idle_per_second)
            record.charged_until += seconds * 10**9

    # --- answers

    def respond(
        self, origin: Origin, reply: bytes, reject: Reject | None, refund: int, root: bytes
    ) -> None:
        """Send an answer to whoever waits for it, with the cycles that were not accepted."""
        if origin.request_id:
            self.history.finish(origin.request_id, reply, reject)
            self.finished.append(origin.request_id)
            record = self._by_root.get(origin.request_id)
            if record is not None:
                record.status = "replied" if reject is None else "rejected"
        elif origin.canister:
            task = Task(
                "response",
                origin.canister,
                arg=reply,
                reject=reject,
                cycles=refund,
                callback=origin.callback,
                root=root,
            )
            self.queue.append(task)

    def induct(self, task: Task, payer: bytes) -> None:
        """Put a user's message into the queue; the canister that it is for pays for it."""
        record = MessageRecord(
            task.origin.request_id, task.canister or payer, task.method, self.now()
        )
        if len(self.messages) == KEPT_MESSAGES:
            self._by_root.pop(self.messages[0].request_id, None)
        self.messages.append(record)
        self._by_root[record.request_id] = record
        hosted = self.hosted.get(payer)
        if hosted is not None:
            fee = fees.ingress(len(task.method) + len(task.arg))
            if hosted.available_cycles < fee and task.canister != MANAGEMENT:
                missing = fee - hosted.available_cycles
                reject = rejects.out_of_cycles(payer, missing)
                self.respond(task.origin, b"", reject, 0, task.root)
                return
            hosted.record.cycles = max(0, hosted.record.cycles - fee)
        self.queue.append(task)

    def account(self, root: bytes, outcome: Outcome) -> None:
        """Add a message's instructions to the record of the ingress message that caused it."""
        record = self._by_root.get(root) if root else None
        if record is not None:
            record.instructions += outcome.instructions
            record.page_instructions += outcome.page_instructions
            record.messages += 1

    # --- running code

    def environment(self, hosted: Hosted, now: int) -> Environment:
        """Return what the canister may ask about itself."""
        record = hosted.record
        return Environment(
            canister_id=record.id,
            time=now,
            balance=record.cycles,
            controllers=record.settings.controllers,
            version=record.version,
            status=_STATUS[record.status],
            subnet_id=self.subnet_id,
            root_key=self.root_key,
            variables=record.settings.environment_variables,
            timer=record.timer,
        )

    def closed(self, canister: bytes) -> Reject | None:
        """Return why the canister takes no calls; may be asked from any thread."""
        hosted = self.hosted.get(canister)
        if hosted is None:
            return rejects.not_found(canister)
        if hosted.record.status == "stopped":
            return rejects.stopped(canister)
        if hosted.record.status == "stopping":
            return rejects.stopping(canister)
        if not hosted.code.installed:
            return rejects.no_module(canister)
        return None

    def refusal(self, canister: bytes) -> Reject | None:
        """Return why the canister can't run a call just now."""
        closed = self.closed(canister)
        if closed is None:
            missing = fees.PREPAID - self.hosted[canister].available_cycles
            if missing > 0:
                return rejects.out_of_cycles(canister, missing)
        return closed

    def run_call(self, task: Task) -> None:
        """Run a call of a user or canister."""
        refusal = self.refusal(task.canister)
        if refusal is not None:
            self.respond(task.origin, b"", refusal, task.cycles, task.root)
            return
        hosted = self.hosted[task.canister]
        context = self._open(hosted, task)
        exports = hosted.code.exports
        is_query = (
            f"canister_update {task.method}" not in exports
            and f"canister_query {task.method}" in exports
        )
        kind = Kind.QUERY if is_query else Kind.UPDATE
        self._run(hosted, context, kind, method=task.method, arg=task.arg)

    def run_system(self, task: Task) -> None:
        """Run a timer or a heartbeat."""
        hosted = self.hosted.get(task.canister)
        kind = Kind.TIMER if task.kind == "timer" else Kind.HEARTBEAT
        if hosted is None or self.refusal(task.canister) is not None:
            return
        if kind.value not in hosted.code.exports:
            return
        context = self._open(hosted, task)
        context.answered = True  # nobody waits
        self._run(hosted, context, kind)

    def run_response(self, task: Task) -> None:
        """Run the callback that a response belongs to."""
        hosted = self.hosted.get(task.canister)
        if hosted is None:
            return
        record = hosted.record
        record.cycles += task.cycles
        pending = record.calls.pop(task.callback, None)
        context = record.contexts.get(pending.context) if pending is not None else None
        if pending is None or context is None:
            return  # the code that made the call is gone
        context.outstanding -= 1
        record.cycles = max(0, record.cycles - len(task.arg) * fees.CALL_BYTE)
        replied = task.reject is None
        trapped = self._run(
            hosted,
            context,
            Kind.REPLY_CALLBACK if replied else Kind.REJECT_CALLBACK,
            pending=pending,
            arg=task.arg,
            refund=task.cycles,
            reject=task.reject,
        )
        if trapped and pending.on_cleanup is not None and hosted.code.installed:
            # Runs for its changes to memory alone: it can neither answer nor call.
            outcome = self._execute(hosted, context, Kind.CLEANUP, pending=pending)
            self._apply(hosted, context, outcome)

    def _open(self, hosted: Hosted, task: Task) -> CallContext:
        context = CallContext(
            self._take_id(), task.origin, task.caller, task.cycles, task.root, task.deadline
        )
        hosted.record.contexts[context.id] = context
        return context

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _run(
        self,
        hosted: Hosted,
        context: CallContext,
        kind: Kind,
        *,
        pending: PendingCall | None = None,
        method: str = "",
        arg: bytes = b"",
        refund: int = 0,
        reject: Reject | None = None,
    ) -> bool:
        """Run one message of a call context, apply it and answer; tell whether it trapped."""
        outcome = self._execute(
            hosted,
            context,
            kind,
            pending=pending,
            method=method,
            arg=arg,
            refund=refund,
            reject=reject,
        )
        if kind is not Kind.QUERY:
            self._apply(hosted, context, outcome)
        self._conclude(hosted, context, outcome)
        return outcome.trap is not None

    def _execute(
        self,
        hosted: Hosted,
        context: CallContext,
        kind: Kind,
        *,
        pending: PendingCall | None = None,
        method: str = "",
        arg: bytes = b"",
        refund: int = 0,
        reject: Reject | None = None,
    ) -> Outcome:
        record = hosted.record
        now = self.now()
        self.charge_idle(hosted, now)
        prepaid = min(record.cycles, fees.PREPAID)
        record.cycles -= prepaid
        callback = None
        if pending is not None:
            callback = {
                Kind.REPLY_CALLBACK: pending.on_reply,
                Kind.REJECT_CALLBACK: pending.on_reject,
                Kind.CLEANUP: pending.on_cleanup,
            }[kind]
        message = Message(
            kind=kind,
            environment=self.environment(hosted, now),
            method=method,
            arg=arg,
            caller=context.caller,
            cycles=refund if pending is not None else context.cycles,
            callback=callback,
            reject=reject,
            answered=context.answered,
            deadline=context.deadline,
            context_instructions=context.instructions,
        )
        try:
            outcome = hosted.code.execute(message)
        except Exception:  # noqa: BLE001 - one canister's trouble must not end the network
            _LOG.exception("running %s of %s failed", kind.value, to_text(record.id))
            outcome = Outcome(trap=rejects.engine_failure(record.id))
        context.instructions += outcome.instructions
        self.account(context.root, outcome)
        record.cycles = max(0, record.cycles + prepaid - fees.execution(outcome.instructions))
        record.add_log(outcome.logs)
        return outcome

    def _apply(self, hosted: Hosted, context: CallContext, outcome: Outcome) -> None:
        if outcome.trap is not None:
            return
        record = hosted.record
        accepted = min(outcome.cycles_accepted, context.cycles)
        context.cycles -= accepted
        record.cycles = max(0, record.cycles + accepted - outcome.cycles_burned)
        record.version += 1
        if outcome.timer is not None:
            record.timer = outcome.timer
        if outcome.certified_data is not None and outcome.certified_data != record.certified_data:
            record.certified_data = outcome.certified_data
            self.publish(hosted)
        for call in outcome.calls:
            self._send(record, context, call)

    def _send(self, record: CanisterRecord, context: CallContext, call: OutgoingCall) -> None:
        number = self._take_id()
        record.calls[number] = PendingCall(
            context.id, call.on_reply, call.on_reject, call.on_cleanup
        )
        context.outstanding += 1
        origin = Origin(canister=record.id, callback=number)
        cost = call.cycles + fees.call(len(call.method) + len(call.arg))
        if cost > record.cycles:
            reject = rejects.out_of_cycles(record.id, cost - record.cycles)
            self.respond(origin, b"", reject, 0, context.root)
            return
        record.cycles -= cost
        seconds = call.timeout_seconds
        self.queue.append(
            Task(
                "call",
                call.callee,
                origin,
                caller=record.id,
                method=call.method,
                arg=call.arg,
                cycles=call.cycles,
                deadline=self.now() + seconds * 10**9 if seconds is not None else 0,
                root=context.root,
            )
        )

    def _conclude(self, hosted: Hosted, context: CallContext, outcome: Outcome) -> None:
        """Answer if the message did, or if nothing else can; close what is over."""
        reply, reject = outcome.reply or b"", outcome.reject
        answers = outcome.reply is not None or reject is not None
        if outcome.trap is not None:
            reply, reject, answers = b"", outcome.trap, context.outstanding == 0
        elif not answers and context.outstanding == 0:
            reject, answers = rejects.did_not_reply(hosted.record.id), True
        if answers and not context.answered:
            context.answered = True
            refund, context.cycles = context.cycles, 0
            self.respond(context.origin, reply, reject, refund, context.root)
        if context.outstanding == 0:
            hosted.record.contexts.pop(context.id, None)
            self.settle_stop(hosted)

    def settle_stop(self, hosted: Hosted) -> None:
        """Let a stopping canister be stopped once it has nothing open."""
        record = hosted.record
        if record.status == "stopping" and not record.contexts:
            record.status = "stopped"
            for request in record.stop_requests:
                self.respond(request.origin, EMPTY_REPLY, None, request.cycles, b"")
            record.stop_requests.clear()

    def drop_contexts(self, hosted: Hosted) -> None:
        """Reject everything that the canister's code has not answered, as it is going away."""
        contexts = list(hosted.record.contexts.values())
        hosted.record.contexts.clear()
        for context in contexts:
            if not context.answered:
                reject = rejects.uninstalled(hosted.record.id)
                self.respond(context.origin, b"", reject, context.cycles, context.root)
        self.settle_stop(hosted)

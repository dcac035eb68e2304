"""The way of messages through the subnet: calls, responses, timers, heartbeats.

One message runs at a time, on the subnet's worker thread, and everything here belongs to that
thread but for `views`, which others read. A message's outcome is applied when it succeeded; after
a trap the execution has rolled back already, and only what the platform keeps is kept: the
instructions' price and the log. With each commit of a canister's memory, the outcome is noted down
in its folder: `recover` applies it again if the process was killed before it was written elsewhere.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

from icgpt.principal import MANAGEMENT, to_text
from icgpt.replica import fees, rejects, state
from icgpt.replica.certification import Keys
from icgpt.replica.history import History
from icgpt.replica.hosting import Hosted, Table, View
from icgpt.replica.messages import Environment, Kind, Message, Outcome, OutgoingCall, Reject
from icgpt.replica.records import (
    CallContext,
    Everything,
    MessageRecord,
    Note,
    OpenStep,
    Origin,
    PendingCall,
    Step,
    Task,
)
from icgpt.replica.tasks import TaskQueue

__all__ = ["EMPTY_REPLY", "Hosted", "Router", "View"]

_LOG = logging.getLogger(__name__)
KEPT_MESSAGES = 1_000
EMPTY_REPLY = b"DIDL\x00\x00"
MAX_TIMEOUT = 300  # seconds that a best-effort call may wait
STOP_SECONDS = 300  # that whoever stops a canister waits
_STATUS = {"running": 1, "stopping": 2, "stopped": 3}
_SYSTEM = {
    "timer": Kind.TIMER,
    "heartbeat": Kind.HEARTBEAT,
    "low_memory": Kind.LOW_WASM_MEMORY,
}


@dataclass(frozen=True)
class Work:
    """What is to run next of a call context."""

    kind: Kind
    method: str = ""
    arg: bytes = b""
    pending: PendingCall | None = None  # of a callback
    refund: int = 0
    reject: Reject | None = None


class Router(Table):
    """Runs tasks; see the module's text."""

    def __init__(
        self,
        folder: Path,
        everything: Everything,
        history: History,
        keys: Keys,
        *,
        sync: bool = False,
    ) -> None:
        self.history = history
        self.ledgers = everything.ledgers
        self.ledgers_changed = False
        self.subnet_id = keys.subnet_id
        self.root_key = keys.root_key
        self.next_canister = everything.next_canister
        self._next_id = everything.next_id
        self.queue = TaskQueue(everything.queue)
        self.messages = {record.request_id: record for record in everything.messages}
        self._changed_messages: dict[bytes, None] = {}
        self._open: dict[tuple[bytes, int], None] = {}  # contexts and calls changed likewise
        self.finished: list[bytes] = []  # requests answered since the server last looked
        self._now = 0
        super().__init__(folder, everything.canisters, sync=sync)
        self.deadlines = {
            (canister, number): call.deadline
            for canister, hosted in self.hosted.items()
            for number, call in hosted.record.calls.items()
            if call.deadline
        }

    # --- what is written down

    def everything(self) -> Everything:
        """Return the whole state, but for what the subnet itself knows."""
        records = [hosted.record for hosted in self.hosted.values()]
        return Everything(
            next_canister=self.next_canister,
            next_id=self._next_id,
            canisters=records,
            queue=list(self.queue),
            entries=self.history.entries(),
            messages=list(self.messages.values()),
            ledgers=self.ledgers,
        )

    def step(self) -> Step:
        """Return what has changed since the last time."""
        touched, self.touched = self.touched, {}
        changed, self._changed_messages = self._changed_messages, {}
        entries, forgotten = self.history.unwritten()
        records = []
        for canister in touched:
            hosted = self.hosted.get(canister)
            if hosted is not None:
                hosted.record.commit = hosted.code.commit
                records.append(replace(hosted.record, contexts={}, calls={}))
        opened, self._open = self._open, {}
        changed_ledgers, self.ledgers_changed = self.ledgers_changed, False
        return Step(
            next_canister=self.next_canister,
            next_id=self._next_id,
            canisters=records,
            open=[self._described(*key) for key in opened if key[0] in self.hosted],
            removed=[canister for canister in touched if canister not in self.hosted],
            queue=self.queue.steps(),
            entries=entries,
            forgotten=forgotten,
            messages=[self.messages[i] for i in changed if i in self.messages],
            ledgers=self.ledgers if changed_ledgers else None,
        )

    def _described(self, canister: bytes, number: int) -> OpenStep:
        record = self.hosted[canister].record
        return OpenStep(canister, number, record.contexts.get(number), record.calls.get(number))

    @property
    def changed(self) -> bool:
        """Whether canisters or records have changed since the last step."""
        return bool(self.touched or self._changed_messages or self.ledgers_changed)

    def settle(self) -> None:
        """Let go of what was kept in case of a crash, as the last step is written down."""
        if self._committed is not None:
            self._committed.code.settle()
            self._committed = None
        self.discard()

    _committed: Hosted | None = None

    def seal(self, hosted: Hosted, note: Note) -> bytes:
        """Return what is noted down with a commit of the canister's memory."""
        self._committed = hosted
        return state.pack(note)

    def now(self) -> int:
        """Return the time in nanoseconds; it never goes back and never stands still."""
        self._now = max(time.time_ns(), self._now + 1)
        return self._now

    # --- answers

    def respond(
        self, origin: Origin, reply: bytes, reject: Reject | None, refund: int, root: bytes
    ) -> None:
        """Send an answer to whoever waits for it, with the cycles that were not accepted."""
        if origin.request_id:
            self.history.finish(origin.request_id, reply, reject)
            self.finished.append(origin.request_id)
            record = self.messages.get(origin.request_id)
            if record is not None:
                record.status = "replied" if reject is None else "rejected"
                self._changed_messages[origin.request_id] = None
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
        request_id = task.origin.request_id
        record = MessageRecord(request_id, task.canister or payer, task.method, self.now())
        while len(self.messages) >= KEPT_MESSAGES:
            del self.messages[next(iter(self.messages))]
        self.messages[request_id] = record
        self._changed_messages[request_id] = None
        hosted = self.hosted.get(payer)
        if hosted is not None:
            fee = fees.ingress(len(task.method) + len(task.arg))
            if hosted.available_cycles < fee and task.canister != MANAGEMENT:
                self.queue.refuse(request_id)
                missing = fee - hosted.available_cycles
                reject = rejects.out_of_cycles(payer, missing)
                self.respond(task.origin, b"", reject, 0, task.root)
                return
            hosted.record.cycles = max(0, hosted.record.cycles - fee)
            self.touched[payer] = None
        self.queue.induct(task)

    def account(self, root: bytes, outcome: Outcome) -> None:
        """Add a message's instructions to the record of the ingress message that caused it."""
        record = self.messages.get(root) if root else None
        if record is not None:
            record.instructions += outcome.instructions
            record.page_instructions += outcome.page_instructions
            record.messages += 1
            self._changed_messages[root] = None

    # --- running code

    def environment(self, hosted: Hosted, now: int) -> Environment:
        """Return what the canister may ask about itself."""
        record = hosted.record
        settings = record.settings
        return Environment(
            canister_id=record.id,
            time=now,
            balance=record.cycles,
            controllers=settings.controllers,
            version=record.version,
            status=_STATUS[record.status],
            subnet_id=self.subnet_id,
            root_key=self.root_key,
            variables=settings.environment_variables,
            timer=record.timer,
            frozen=hosted.frozen_cycles,
            frozen_gib=fees.GIB_SECOND * settings.freezing_threshold,
            spare_memory=max(0, settings.memory_allocation - hosted.used_memory),
            memory_limit=settings.wasm_memory_limit,
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

    def _unpaid(self, task: Task) -> Reject | None:
        """Return why a call of another canister has too few cycles with it."""
        hosted = self.hosted.get(task.canister)
        if hosted is None or not task.origin.canister or task.origin.canister == task.canister:
            return None
        wanted = hosted.record.settings.minimum_incoming_canister_call_cycles
        if task.cycles >= wanted:
            return None
        return rejects.too_few_cycles(task.canister, wanted, task.cycles)

    def run_call(self, task: Task) -> None:
        """Run a call of a user or canister."""
        refusal = self._unpaid(task) or self.refusal(task.canister)
        if refusal is not None:
            self.respond(task.origin, b"", refusal, task.cycles, task.root)
            return
        hosted = self.hosted[task.canister]
        exports = hosted.code.exports
        if f"canister_composite_query {task.method}" in exports:
            refusal = rejects.composite_in_update()
            self.respond(task.origin, b"", refusal, task.cycles, task.root)
            return
        is_query = (
            f"canister_update {task.method}" not in exports
            and f"canister_query {task.method}" in exports
        )
        context = self.open(hosted, task)
        kind = Kind.QUERY if is_query else Kind.UPDATE
        work = Work(kind, method=task.method, arg=task.arg)
        outcome = self._execute(hosted, context, work, task)
        self.finish(hosted, context, outcome, applies=not is_query)

    def run_system(self, task: Task) -> None:
        """Run a timer, a heartbeat, or the hook for memory that runs low."""
        hosted = self.hosted.get(task.canister)
        kind = _SYSTEM[task.kind]
        if hosted is None or self.refusal(task.canister) is not None:
            return
        if task.kind == "low_memory":
            hosted.record.low_memory = "executed"
            self.touched[task.canister] = None
        if kind.value not in hosted.code.exports:
            return
        context = self.open(hosted, task)
        context.answered = True  # nobody waits
        outcome = self._execute(hosted, context, Work(kind), task)
        self.finish(hosted, context, outcome)

    def run_response(self, task: Task) -> None:
        """Run the callback that a response belongs to."""
        hosted = self.hosted.get(task.canister)
        if hosted is None:
            return
        context, pending = self.take_response(hosted, task)
        if context is None or pending is None:
            return  # the code that made the call is gone
        kind = Kind.REPLY_CALLBACK if task.reject is None else Kind.REJECT_CALLBACK
        work = Work(kind, "", task.arg, pending, task.cycles, task.reject)
        outcome = self._execute(hosted, context, work, task)
        if outcome.trap is not None and pending.on_cleanup is not None and hosted.code.installed:
            # Runs for its changes to memory alone: it can neither answer nor call.
            work = Work(Kind.CLEANUP, pending=pending)
            cleanup = self._execute(hosted, context, work, task, outcome)
            if cleanup.trap is not None:
                outcome.trap = rejects.cleanup_failed(hosted.record.id, outcome.trap, cleanup.trap)
            self.apply(hosted, context, cleanup)
        self.finish(hosted, context, outcome)

    def take_response(
        self, hosted: Hosted, task: Task
    ) -> tuple[CallContext | None, PendingCall | None]:
        """Book a response; gives what waits for it, if anything still does."""
        record = hosted.record
        self.touched[record.id] = None
        record.cycles += task.cycles
        pending = record.calls.pop(task.callback, None)
        self.deadlines.pop((record.id, task.callback), None)
        if pending is None:
            return None, None
        self._open[record.id, task.callback] = None
        record.cycles += max(0, fees.RESPONSE_PREPAID - len(task.arg) * fees.CALL_BYTE)
        context = record.contexts.get(pending.context)
        if context is not None:
            context.outstanding -= 1
            self._open[record.id, context.id] = None
        return context, pending

    def expire(self, now: int) -> None:
        """Reject the best-effort calls whose time is over; what comes later for them is dropped."""
        for (canister, number), deadline in list(self.deadlines.items()):
            if deadline <= now:
                del self.deadlines[canister, number]
                origin = Origin(canister=canister, callback=number)
                pending = self.hosted[canister].record.calls.get(number)
                context = pending and self.hosted[canister].record.contexts.get(pending.context)
                root = context.root if context else b""
                self.respond(origin, b"", rejects.deadline_expired(), 0, root)

    def expire_stops(self, now: int) -> None:
        """Give up on canisters that don't get done with their calls; they go on stopping."""
        for canister, hosted in self.hosted.items():
            waiting = hosted.record.stop_requests
            for request in [r for r in waiting if r.since + STOP_SECONDS * 10**9 < now]:
                waiting.remove(request)
                self.touched[canister] = None
                self.respond(request.origin, b"", rejects.stop_timed_out(), request.cycles, b"")

    def open(self, hosted: Hosted, task: Task) -> CallContext:
        """Begin to answer a task."""
        self.touched[hosted.record.id] = None
        context = CallContext(
            self._take_id(), task.origin, task.caller, task.cycles, task.root, task.deadline
        )
        hosted.record.contexts[context.id] = context
        self._open[hosted.record.id, context.id] = None
        return context

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _execute(
        self,
        hosted: Hosted,
        context: CallContext,
        work: Work,
        task: Task,
        first: Outcome | None = None,
    ) -> Outcome:
        """Run one message of a call context and charge for it.

        `first` is what came of the callback that a cleanup belongs to.
        """
        record, pending = hosted.record, work.pending
        now = self.now()
        self.charge_idle(hosted, now)
        hosted.prepaid = min(record.cycles, fees.PREPAID)
        record.cycles -= hosted.prepaid
        callback = None
        if pending is not None:
            callback = {
                Kind.REPLY_CALLBACK: pending.on_reply,
                Kind.REJECT_CALLBACK: pending.on_reject,
                Kind.CLEANUP: pending.on_cleanup,
            }[work.kind]
        message = Message(
            kind=work.kind,
            environment=self.environment(hosted, now),
            method=work.method,
            arg=work.arg,
            caller=context.caller,
            cycles=work.refund if pending is not None else context.cycles,
            callback=callback,
            reject=work.reject,
            answered=context.answered,
            deadline=context.deadline,
            context_instructions=context.instructions,
        )

        def seal(outcome: Outcome) -> bytes:
            with self.lock:
                return self.seal(hosted, Note(work.kind.value, task.key, outcome, first))

        try:
            with self.aside():
                outcome = hosted.code.execute(message, seal)
        except Exception:  # noqa: BLE001 - one canister's trouble must not end the network
            _LOG.exception("running %s of %s failed", work.kind.value, to_text(record.id))
            outcome = Outcome(trap=rejects.engine_failure(record.id))
        record.cycles += hosted.prepaid
        hosted.prepaid = 0
        self.charge(hosted, context, outcome)
        return outcome

    def charge(self, hosted: Hosted, context: CallContext, outcome: Outcome) -> None:
        """Charge for a message that has run, and keep what it said."""
        record = hosted.record
        self.touched[record.id] = None
        context.instructions += outcome.instructions
        self.account(context.root, outcome)
        record.cycles = max(0, record.cycles - fees.execution(outcome.instructions))
        record.add_log(outcome.logs)

    def finish(
        self, hosted: Hosted, context: CallContext, outcome: Outcome, *, applies: bool = True
    ) -> None:
        """Do what a message wanted, answer if it did or nothing else can, close what is over."""
        self._open[hosted.record.id, context.id] = None
        if applies:
            self.apply(hosted, context, outcome)
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
        hosted.applied = hosted.code.commit

    def apply(self, hosted: Hosted, context: CallContext, outcome: Outcome) -> None:
        """Do what a message wanted, unless it trapped."""
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
            self._send(hosted, context, call)
        self.watch_memory(hosted)

    def watch_memory(self, hosted: Hosted) -> None:
        """Have the canister told once when its heap comes near its limit."""
        record = hosted.record
        settings = record.settings
        limit = settings.wasm_memory_limit or fees.MAX_HEAP
        low = limit - hosted.code.heap_bytes < settings.wasm_memory_threshold
        if not low:
            record.low_memory = "condition_not_satisfied"
        elif record.low_memory == "condition_not_satisfied":
            record.low_memory = "ready"
            self.queue.append(Task("low_memory", record.id))

    def _send(self, hosted: Hosted, context: CallContext, call: OutgoingCall) -> None:
        record = hosted.record
        number = self._take_id()
        deadline = 0
        if call.timeout_seconds is not None:
            deadline = self.now() + min(call.timeout_seconds, MAX_TIMEOUT) * 10**9
            self.deadlines[record.id, number] = deadline
        record.calls[number] = PendingCall(
            context.id, call.on_reply, call.on_reject, call.on_cleanup, deadline
        )
        self._open[record.id, number] = None
        context.outstanding += 1
        size = len(call.method) + len(call.arg)
        record.cycles -= call.cycles + fees.call(size) + fees.RESPONSE_PREPAID
        self.queue.append(
            Task(
                "call",
                call.callee,
                Origin(canister=record.id, callback=number),
                caller=record.id,
                method=call.method,
                arg=call.arg,
                cycles=call.cycles,
                deadline=deadline,
                root=context.root,
            )
        )

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
            self._open[hosted.record.id, context.id] = None
            if not context.answered:
                reject = rejects.uninstalled(hosted.record.id)
                self.respond(context.origin, b"", reject, context.cycles, context.root)
        self.settle_stop(hosted)

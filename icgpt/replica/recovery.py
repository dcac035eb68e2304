"""After a kill: messages whose memory is committed, and nothing else of them written down.

Memory is committed first, with a note of all else that the message did; then the rest goes into the
subnet's log. Between the two a process may end. The notes, in the canisters' folders, tell: each
canister whose last commit the subnet's state does not know has one message that has to be finished.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from icgpt.principal import to_text
from icgpt.replica import state
from icgpt.replica.messages import Kind
from icgpt.replica.records import Note, Task
from icgpt.replica.routing import EMPTY_REPLY, Hosted, Router

if TYPE_CHECKING:
    from icgpt.replica.management import Management

_LOG = logging.getLogger(__name__)
_CALLBACKS = (Kind.REPLY_CALLBACK.value, Kind.REJECT_CALLBACK.value, Kind.CLEANUP.value)


def recover(router: Router, management: Management) -> None:
    """Finish what was cut off."""
    for hosted in list(router.hosted.values()):
        if hosted.code.commit <= hosted.record.commit:
            continue
        router.touched[hosted.record.id] = None
        if hosted.code.note:
            note = state.unpack(hosted.code.note, Note)
            _LOG.info("finishing a %s of %s", note.kind, to_text(hosted.record.id))
            _finish(router, management, hosted, note)


def _finish(router: Router, management: Management, hosted: Hosted, note: Note) -> None:
    task = router.queue.extract(note.task)
    if task is None:
        if note.task.kind in ("call", "response"):
            _LOG.error("the task that ran last is not in the queue")
            return
        task = Task(note.task.kind, hosted.record.id)  # due by the clock, and done by now
        if task.kind == "timer":
            hosted.record.timer = 0
        elif task.kind == "low_memory":
            hosted.record.low_memory = "executed"
    outcome = note.outcome
    if note.kind == "install":
        router.account(task.root, outcome)
        management.after_install(hosted, note.author, outcome, note.mode, note.size)
        router.respond(task.origin, EMPTY_REPLY, None, task.cycles, task.root)
        return
    if note.kind in _CALLBACKS:
        context, _ = router.take_response(hosted, task)
        if context is None:
            return
        if note.first is not None:
            router.charge(hosted, context, note.first)
            router.charge(hosted, context, outcome)
            router.apply(hosted, context, outcome)
            router.finish(hosted, context, note.first)
            return
    else:
        context = router.open(hosted, task)
        context.answered = note.kind in (
            Kind.TIMER.value,
            Kind.HEARTBEAT.value,
            Kind.LOW_WASM_MEMORY.value,
        )
    router.charge(hosted, context, outcome)
    router.finish(hosted, context, outcome)

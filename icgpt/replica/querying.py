"""Queries: answered beside the updates, on the state that is committed, by threads of their own.

A composite query may call queries of other canisters, which may call on. The calls are made one
after the other, each on the memory as it was committed; the callbacks go on with what the caller
has left in its own memory, which is dropped when the query has ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from icgpt.principal import to_text
from icgpt.replica import errors, rejects
from icgpt.replica.ingress import Request
from icgpt.replica.messages import Callback, Kind, Message, Outcome, OutgoingCall, Reject
from icgpt.replica.reading import Reader
from icgpt.replica.routing import Router

_LOG = logging.getLogger(__name__)
THREADS = 4
MAX_DEPTH = 6
MAX_INSTRUCTIONS = 20_000_000_000  # of a composite query with all that it calls
ATTEMPTS = 50  # at finding memory and certified data that belong together
PAUSE_SECONDS = 0.001


@dataclass(frozen=True)
class Answer:
    """What a query gave: a reply, or a rejection."""

    reply: bytes = b""
    reject: Reject | None = None


@dataclass
class _Budget:
    """What a query and all that it calls may still use."""

    left: int = MAX_INSTRUCTIONS


class Queries:
    """Answers queries; `certificate` gives the proof of a canister's certified data.

    `system` answers what is about the management or a system canister, and gives None for others.
    """

    def __init__(
        self,
        router: Router,
        certificate: Callable[[bytes], bytes | None],
        system: Callable[[Request], Answer | None],
    ) -> None:
        self._router = router
        self._certificate = certificate
        self._system = system
        self._threads = ThreadPoolExecutor(THREADS, "icgpt-query")
        self._apart = ThreadPoolExecutor(1, "icgpt-system-query")
        self._counting = threading.Lock()

    def ask(self, kind: Kind, request: Request) -> Future[Answer]:
        """Have a query run, or `canister_inspect_message`."""
        return self._threads.submit(self._safely, request, lambda asked: self._answer(kind, asked))

    def ask_system(self, request: Request) -> Future[Answer]:
        """Have the network itself answer a query, without waiting for canisters' queries."""
        return self._apart.submit(self._safely, request, self._answer_system)

    def _answer_system(self, request: Request) -> Answer:
        answer = self._system(request)
        return answer or Answer(reject=rejects.not_found(request.canister_id))

    def close(self) -> None:
        """Answer no more; returns when nothing runs."""
        self._threads.shutdown(cancel_futures=True)
        self._apart.shutdown(cancel_futures=True)

    @staticmethod
    def _safely(request: Request, answer: Callable[[Request], Answer]) -> Answer:
        try:
            return answer(request)
        except Exception:  # noqa: BLE001 - one query's trouble must not end the network
            _LOG.exception("a query of %s failed", to_text(request.canister_id))
            return Answer(reject=rejects.engine_failure(request.canister_id))

    def _answer(self, kind: Kind, request: Request) -> Answer:
        canister = request.canister_id
        refusal = self._router.closed(canister)
        hosted = self._router.hosted.get(canister)
        if refusal is not None or hosted is None:
            return Answer(reject=refusal or rejects.not_found(canister))
        exports = hosted.code.exports
        if kind is Kind.QUERY and f"canister_composite_query {request.method}" in exports:
            kind = Kind.COMPOSITE_QUERY
        budget = _Budget()
        answer = self._run(canister, kind, request.method, request.arg, request.sender, budget)
        if kind is not Kind.INSPECT:
            with self._counting:
                record = hosted.record
                record.queries += 1
                record.query_instructions += MAX_INSTRUCTIONS - budget.left
                record.query_request_bytes += len(request.arg)
                record.query_response_bytes += len(answer.reply)
        return answer

    def _run(
        self,
        canister: bytes,
        kind: Kind,
        method: str,
        arg: bytes,
        caller: bytes,
        budget: _Budget,
        depth: int = 0,
    ) -> Answer:
        """Run a query of one canister to its end."""
        for attempt in range(ATTEMPTS):
            hosted = self._router.hosted.get(canister)
            if hosted is None:
                return Answer(reject=rejects.not_found(canister))
            with hosted.code.reading() as reader:
                if reader is None:
                    return Answer(reject=rejects.no_module(canister))
                # A commit's memory is shown a moment before its certified data.
                known = hosted.code.commit == hosted.applied
                certificate = None
                if hosted.record.certified_data and kind is not Kind.INSPECT:
                    certificate = self._certificate(canister)
                    known = known and hosted.code.commit == hosted.applied
                if known or attempt == ATTEMPTS - 1:
                    environment = self._router.environment(hosted, time.time_ns())
                    message = Message(
                        kind=kind,
                        environment=replace(environment, balance=hosted.balance),
                        method=method,
                        arg=arg,
                        caller=caller,
                        replicated=False,
                        certificate=certificate,
                    )
                    return _Conversation(self, reader, message, budget, depth).run()
            time.sleep(PAUSE_SECONDS)
        return Answer(reject=rejects.engine_failure(canister))

    def call(self, caller: bytes, call: OutgoingCall, budget: _Budget, depth: int) -> Answer:
        """Answer a call that a composite query has made."""
        asked = Request(b"", "query", caller, 0, call.callee, call.method, call.arg)
        answer = self._system(asked)
        if answer is not None:
            return answer
        hosted = self._router.hosted.get(call.callee)
        refusal = self._router.closed(call.callee)
        if refusal is not None or hosted is None:
            return Answer(reject=refusal or rejects.not_found(call.callee))
        if depth >= MAX_DEPTH:
            return Answer(reject=rejects.queries_too_deep())
        composite = f"canister_composite_query {call.method}" in hosted.code.exports
        kind = Kind.COMPOSITE_QUERY if composite else Kind.QUERY
        return self._run(call.callee, kind, call.method, call.arg, caller, budget, depth)


class _Conversation:
    """One canister's part in a query: its method, the calls it makes, and their callbacks."""

    def __init__(
        self, queries: Queries, reader: Reader, message: Message, budget: _Budget, depth: int
    ) -> None:
        self._queries = queries
        self._reader = reader
        self._message = message
        self._budget = budget
        self._depth = depth
        self._calls: deque[OutgoingCall] = deque()
        self._answer: Answer | None = None
        self._trap: Reject | None = None

    def run(self) -> Answer:
        """Run to the end."""
        canister = self._message.environment.canister_id
        outcome = self._step(self._message)
        if self._message.kind is Kind.INSPECT:
            refusal = outcome.trap or (None if outcome.accepted else rejects.not_let_in())
            return Answer(reject=refusal)
        while self._calls:
            if self._budget.left <= 0:
                return Answer(reject=rejects.queries_too_long())
            self._respond(self._calls.popleft())
        return self._answer or Answer(reject=self._trap or errors.did_not_reply(canister))

    def _step(self, message: Message) -> Outcome:
        outcome = self._reader.run(message, max(self._budget.left, 1))
        self._budget.left -= outcome.instructions
        if outcome.trap is not None:
            self._trap = outcome.trap
        else:
            self._calls.extend(outcome.calls)
            if self._answer is None and (outcome.reply is not None or outcome.reject is not None):
                self._answer = Answer(outcome.reply or b"", outcome.reject)
        return outcome

    def _respond(self, call: OutgoingCall) -> None:
        """Have a call answered, and run its callback."""
        canister = self._message.environment.canister_id
        answer = self._queries.call(canister, call, self._budget, self._depth + 1)
        if answer.reject is None:
            kind, callback = Kind.REPLY_CALLBACK, call.on_reply
        else:
            kind, callback = Kind.REJECT_CALLBACK, call.on_reject
        outcome = self._step(self._callback(kind, callback, answer))
        if outcome.trap is not None and call.on_cleanup is not None:
            self._reader.run(self._callback(Kind.CLEANUP, call.on_cleanup, Answer()))

    def _callback(self, kind: Kind, callback: Callback, answer: Answer) -> Message:
        return Message(
            kind=kind,
            environment=self._message.environment,
            arg=answer.reply,
            caller=self._message.caller,
            callback=callback,
            reject=answer.reject,
            answered=self._answer is not None,
            replicated=False,
            certificate=self._message.certificate,
        )

"""Answers with a receipt, as steps: the job is asked for, and kept when it has ended.

    asked = model.ask("ROMEO:", max_new_tokens=50)
    receipt = model.keep(asked)
    receipt.write(Path("romeo.receipt.json"), model.agent.root_key)

`icgpt.kept_receipt` says what such a receipt proves.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from icgpt import methods
from icgpt.errors import CallTimeoutError
from icgpt.evidence import CallEvidence, certified_call
from icgpt.kept_receipt import KeptReceipt
from icgpt.methods import Handle
from icgpt.receipts import verify
from icgpt.steps import Pause, Steps

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


@dataclass(frozen=True)
class Asked:
    """A job that was begun, and what proves that it was asked for."""

    canister: bytes
    job: bytes
    evidence: CallEvidence


def ask(canister: Handle, /, prompt: str | Sequence[int], **options: Any) -> Steps[Asked]:
    """Starts a job whose answer is to be proven; takes what `complete` takes."""
    arg = methods.encoded("submit", methods.prompt_value(prompt), methods.option_values(options))
    reply, evidence = yield from certified_call(canister.agent, canister.id, "submit", arg)
    job = bytes(methods.ok(methods.decoded(canister, "submit", reply)))
    return Asked(canister.id, job, evidence)


def keep(canister: Handle, asked: Asked, seconds: float = 600.0) -> Steps[KeptReceipt]:
    """The receipt of a job, which is waited for. It has been checked, and can be written.

    The canister keeps the last 256 jobs that have ended, so this is to be done soon.
    """
    from icgpt.trust import name_of

    deadline = time.monotonic() + seconds
    yield from _ended(canister, asked.job, deadline)
    asked_at = asked.evidence.check(canister.id, "submit", canister.agent.root_key).time_ns
    while True:
        proof = yield from methods.proof(canister, asked.job)
        # A node that lags behind may certify the job by an older state than it was asked in.
        shown = verify(proof, asked.job, canister.id, canister.agent.root_key)
        if shown.time_ns >= asked_at:
            break
        yield from _wait(_FIRST_PAUSE, deadline)
    arg = methods.encoded("poll", asked.job, 0)
    _, answered = yield from certified_call(canister.agent, canister.id, "poll", arg)
    agent = canister.agent
    network = name_of(agent.url, agent.root_key)
    receipt = KeptReceipt(network, canister.id, asked.job, asked.evidence, proof, answered)
    receipt.verify(agent.root_key)
    return receipt


def _ended(canister: Handle, job: bytes, deadline: float) -> Steps[None]:
    pause = _FIRST_PAUSE
    seen = 0
    while (progress := (yield from methods.poll(canister, job, seen))).finish is None:
        seen += len(progress.token_ids)
        yield from _wait(pause, deadline)
        pause = min(1.5 * pause, _LONGEST_PAUSE)


def _wait(pause: float, deadline: float) -> Steps[None]:
    if time.monotonic() + pause > deadline:
        raise CallTimeoutError(
            "the job has not ended in the time that was allowed",
            "It goes on; a receipt can be had when it has ended.",
        )
    yield Pause(pause)

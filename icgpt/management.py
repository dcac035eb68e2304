"""What the management canister tells of a canister: its log, and how it stands.

Both are queries, so they cost nothing. The log is open to controllers and to whom the canister's
settings name; the status is for controllers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from icgpt import candid
from icgpt.candid import BLOB, NAT, NAT64, PRINCIPAL, Record, Type, Vec
from icgpt.errors import MalformedError
from icgpt.principal import MANAGEMENT

if TYPE_CHECKING:
    from icgpt.agent import Agent

_ID: Final = Record({"canister_id": PRINCIPAL})
_LINE: Final = Record({"idx": NAT64, "timestamp_nanos": NAT64, "content": BLOB})
_LOG: Final = Record({"canister_log_records": Vec(_LINE)})
_STATUS: Final = Record({"memory_size": NAT, "cycles": NAT, "idle_cycles_burned_per_day": NAT})


@dataclass(frozen=True)
class LogLine:
    """A line that a canister wrote, or the platform of a trap."""

    index: int
    time_ns: int
    text: str


@dataclass(frozen=True)
class Status:
    """What a canister has and needs."""

    memory_bytes: int
    cycles: int
    idle_cycles_per_day: int


def log(agent: Agent, canister: bytes) -> list[LogLine]:
    """The canister's log, the oldest line first; the platform keeps the last few kilobytes."""
    value = _ask(agent, "fetch_canister_logs", canister, _LOG)
    return [
        LogLine(one["idx"], one["timestamp_nanos"], one["content"].decode("utf-8", "replace"))
        for one in value["canister_log_records"]
    ]


def status(agent: Agent, canister: bytes) -> Status:
    """How a canister stands."""
    value = _ask(agent, "canister_status", canister, _STATUS)
    return Status(value["memory_size"], value["cycles"], value["idle_cycles_burned_per_day"])


def _ask(agent: Agent, method: str, canister: bytes, kind: Type) -> dict[str, Any]:
    argument = candid.encode([_ID], [{"canister_id": canister}])
    reply = agent.query(MANAGEMENT, method, argument, canister)
    try:
        (value,) = candid.decode(reply, [kind])
    except candid.CandidError as error:
        raise MalformedError(
            f"the network answered '{method}' in a form that we don't know"
        ) from error
    return dict(value)

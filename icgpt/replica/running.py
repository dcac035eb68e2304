"""Running one entry point of a canister's code on an instance: what updates and queries share."""

from __future__ import annotations

from collections.abc import Callable

from icgpt.replica import errors
from icgpt.replica.errors import Trap
from icgpt.replica.instance import Instance
from icgpt.replica.messages import Kind, Message, Outcome
from icgpt.replica.module import Prepared
from icgpt.replica.page_meter import PageMeter
from icgpt.replica.system_api import SystemApi
from icgpt.replica.weights import Release

UNDONE = (Kind.QUERY, Kind.COMPOSITE_QUERY, Kind.INSPECT)  # kinds that leave nothing behind
_METHODS = {
    Kind.UPDATE: "update",
    Kind.QUERY: "query",
    Kind.COMPOSITE_QUERY: "composite_query",
}
_CALLBACKS = (Kind.REPLY_CALLBACK, Kind.REJECT_CALLBACK, Kind.CLEANUP)
_INSTALLS = (Kind.START, Kind.INIT, Kind.PRE_UPGRADE, Kind.POST_UPGRADE)


def keeps_writes(message: Message) -> bool:
    """Tell whether what the message writes is kept if it ends well."""
    return message.replicated and message.kind not in UNDONE


def entry_of(prepared: Prepared, message: Message) -> str | Outcome:
    """Return the export to run, or what comes of a message that runs none."""
    kind = message.kind
    if kind in _METHODS:
        name = f"{kind.value} {message.method}"
        if name not in prepared.exports:
            trap = errors.no_method(_METHODS[kind], message.method)
            return Outcome(trap=trap.reject(message.environment.canister_id))
        return name
    if kind in _CALLBACKS:
        return ""
    if kind.value in prepared.exports:
        return kind.value
    return Outcome(accepted=kind is Kind.INSPECT)


def limit_of(release: Release, message: Message) -> int:
    """Return how many instructions the message may use."""
    limits = release.limits
    if message.kind is Kind.INSPECT:
        return limits.inspect
    by_query = message.kind is Kind.QUERY or not message.replicated
    return limits.query if by_query else limits.update


def meter(release: Release, message: Message) -> PageMeter:
    """Return what counts the pages that the message touches."""
    limits = release.limits
    most = limits.update_stable
    if message.kind in UNDONE or not message.replicated:
        most = limits.query_stable
    elif message.kind in _INSTALLS:
        most = limits.install_stable
    return PageMeter(release.pages, keeps_writes=keeps_writes(message), most=most, limits=limits)


def run(
    api: SystemApi,
    live: Callable[[], Instance],
    message: Message,
    entry: str,
    limit: int,
    pages: PageMeter,
    check: Callable[[Instance], None] | None = None,
) -> Outcome:
    """Run one entry point; neither commits nor undoes.

    `live` gives the instance, ready to count what is touched; `check` may raise a trap at the end.
    """
    api.begin(message, limit, pages)
    outcome = api.outcome
    instance: Instance | None = None
    before = pages.charged
    try:
        instance = live()
        instance.set_counter(limit)
        if entry:
            instance.run(entry)
        elif message.callback is not None:
            instance.run_callback(message.callback)
        api.charge(pages.heap(instance.heap) + pages.after())
        api.settle()
        if check is not None:
            check(instance)
    except Trap as trap:
        if trap.log:
            api.log(trap.log.encode())
        outcome = Outcome(logs=outcome.logs, trap=trap.reject(message.environment.canister_id))
        if instance is not None:
            api.waiting += pages.heap(instance.heap)
    if instance is not None:
        outcome.instructions = min(max(api.used(), 0), limit)
        outcome.page_instructions = min(pages.charged - before, outcome.instructions)
    if message.kind is Kind.QUERY and not api.answered and outcome.trap is None:
        outcome.trap = errors.did_not_reply(message.environment.canister_id)
    return outcome

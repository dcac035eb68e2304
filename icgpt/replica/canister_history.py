"""What has been changed about a canister, by whom: the history that `canister_info` gives.

The last changes are kept whole, of the others only the number.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from icgpt.candid import (
    BLOB,
    NAT64,
    NULL,
    PRINCIPAL,
    RESERVED,
    TEXT,
    Opt,
    Record,
    Variant,
    Vec,
    encode,
)
from icgpt.replica import rejects
from icgpt.replica.records import Author, CanisterRecord, Change
from icgpt.replica.rejects import RejectError

if TYPE_CHECKING:
    from icgpt.replica.management import Caller, Management

KEPT_CHANGES = 20

INFO_ARGUMENT = Record({"canister_id": PRINCIPAL, "num_requested_changes": Opt(NAT64)})
_ORIGIN = Variant(
    {
        "from_user": Record({"user_id": PRINCIPAL}),
        "from_canister": Record({"canister_id": PRINCIPAL, "canister_version": Opt(NAT64)}),
    }
)
_SOURCE = Variant({"taken_from_canister": RESERVED, "metadata_upload": RESERVED})
_DETAILS = Variant(
    {
        "creation": Record(
            {"controllers": Vec(PRINCIPAL), "environment_variables_hash": Opt(BLOB)}
        ),
        "code_uninstall": NULL,
        "code_deployment": Record(
            {
                "mode": Variant({"install": NULL, "reinstall": NULL, "upgrade": NULL}),
                "module_hash": BLOB,
            }
        ),
        "load_snapshot": Record(
            {
                "from_canister_id": Opt(PRINCIPAL),
                "snapshot_id": BLOB,
                "canister_version": NAT64,
                "taken_at_timestamp": NAT64,
                "source": _SOURCE,
            }
        ),
        "controllers_change": Record({"controllers": Vec(PRINCIPAL)}),
    }
)
_CHANGE = Record(
    {
        "timestamp_nanos": NAT64,
        "canister_version": NAT64,
        "origin": _ORIGIN,
        "details": Opt(_DETAILS),
    }
)
INFO = Record(
    {
        "total_num_changes": NAT64,
        "recent_changes": Vec(_CHANGE),
        "module_hash": Opt(BLOB),
        "controllers": Vec(PRINCIPAL),
    }
)
METADATA_ARGUMENT = Record({"canister_id": PRINCIPAL, "name": TEXT})
METADATA = Record({"value": BLOB})


def note(record: CanisterRecord, author: Author, now: int, change: Change) -> None:
    """Add a change to the history."""
    change.time, change.version, change.author = now, record.version, author
    if change.kind == "creation":
        record.created = now
    elif change.kind in ("code_deployment", "load_snapshot"):
        record.deployed = now
    record.changes.append(change)
    record.total_changes += 1
    del record.changes[:-KEPT_CHANGES]


def created(record: CanisterRecord) -> Change:
    """The change that a creation is."""
    variables = record.settings.environment_variables
    digest = b""
    if variables:
        pairs = sorted(
            hashlib.sha256(name.encode()).digest() + hashlib.sha256(value.encode()).digest()
            for name, value in variables
        )
        digest = hashlib.sha256(b"".join(pairs)).digest()
    return Change("creation", controllers=record.settings.controllers, variables_hash=digest)


def _described(change: Change) -> dict[str, Any]:
    author = change.author
    origin: dict[str, Any] = {"from_user": {"user_id": author.id}}
    if author.is_canister:
        source = {"canister_id": author.id, "canister_version": author.version}
        origin = {"from_canister": source}
    controllers = list(change.controllers)
    details: dict[str, Any] = {
        "creation": {
            "controllers": controllers,
            "environment_variables_hash": change.variables_hash or None,
        },
        "code_uninstall": None,
        "code_deployment": {"mode": {change.mode: None}, "module_hash": change.module_hash},
        "load_snapshot": {
            "from_canister_id": None,
            "snapshot_id": change.snapshot,
            "canister_version": change.snapshot_version,
            "taken_at_timestamp": change.snapshot_time,
            "source": {change.mode: None},
        },
        "controllers_change": {"controllers": controllers},
    }
    return {
        "timestamp_nanos": change.time,
        "canister_version": change.version,
        "origin": origin,
        "details": {change.kind: details[change.kind]},
    }


def info(management: Management, _caller: Caller, argument: dict[str, Any]) -> bytes:
    """Tell any canister who controls a canister, and what was changed about it."""
    hosted = management.hosted(argument["canister_id"])
    record = hosted.record
    wanted = argument["num_requested_changes"] or 0
    found = {
        "total_num_changes": record.total_changes,
        "recent_changes": [_described(c) for c in record.changes[-wanted:]] if wanted else [],
        "module_hash": hosted.code.module_hash,
        "controllers": list(record.settings.controllers),
    }
    return encode([INFO], [found])


def metadata(management: Management, caller: Caller, argument: dict[str, Any]) -> bytes:
    """Read a custom section of a canister's module."""
    hosted = management.hosted(argument["canister_id"])
    name = argument["name"]
    sections = dict(hosted.code.metadata)
    if caller.id in hosted.record.settings.controllers:
        sections |= hosted.code.private_metadata
    if name not in sections:
        text = f"The canister's module has no custom section {name[:100]} that may be read."
        raise RejectError(rejects.reject(404, text))
    return encode([METADATA], [{"value": sections[name]}])

"""A canister's settings: from Candid, checked, and back to Candid."""

from __future__ import annotations

import dataclasses
from typing import Any

from icgpt.replica import fees, rejects
from icgpt.replica.hosting import Hosted
from icgpt.replica.records import Settings, Visibility
from icgpt.replica.rejects import RejectError

MAX_CONTROLLERS = 10
MAX_VIEWERS = 10
MAX_VARIABLES = 20
MAX_VARIABLE_NAME = 128
MAX_VARIABLE_VALUE = 128
_LIMITS = {
    "compute_allocation": 100,
    "memory_allocation": 1 << 48,
    "freezing_threshold": (1 << 64) - 1,
    "reserved_cycles_limit": (1 << 128) - 1,
    "wasm_memory_limit": 1 << 48,
    "wasm_memory_threshold": 1 << 48,
    "log_memory_limit": 2 << 20,
    "minimum_incoming_canister_call_cycles": (1 << 128) - 1,
}
_VISIBILITIES = ("log_visibility", "snapshot_visibility", "status_visibility")


def _error(text: str) -> RejectError:
    return RejectError(rejects.reject(504, f"Could not validate the settings: {text} "))


def changed(settings: Settings, wanted: dict[str, Any]) -> Settings:
    """Return the settings with the wanted changes; what is None stays."""
    changes: dict[str, Any] = {}
    for name, value in wanted.items():
        if value is None:
            continue
        if name == "controllers":
            changes[name] = tuple(dict.fromkeys(value))
            if len(value) > MAX_CONTROLLERS:
                text = (
                    f"Invalid settings: 'controllers' length exceeds maximum size allowed of "
                    f"{MAX_CONTROLLERS}."
                )
                raise _error(text)
        elif name in _LIMITS:
            if value > _LIMITS[name]:
                raise _error(
                    f"{name} expected to be in the range [0..{_LIMITS[name]}], got {value}"
                )
            changes[name] = value
        elif name in _VISIBILITIES:
            changes[name] = _visibility(name, value)
        elif name == "environment_variables":
            changes[name] = _variables(value)
    return dataclasses.replace(settings, **changes)


def check_cycles(hosted: Hosted, wanted: Settings) -> None:
    """Raise unless the canister could pay, until it is empty, for what it is to reserve."""
    for what, number in (("compute", 530), ("memory", 531)):
        name = f"{what}_allocation"
        value = getattr(wanted, name)
        if value <= getattr(hosted.record.settings, name):
            continue
        memory, compute = hosted.memory, wanted.compute_allocation
        if what == "memory":
            memory = max(memory, value)
        frozen = fees.idle_per_second(memory, compute) * wanted.freezing_threshold
        if frozen > hosted.record.cycles:
            shown = f"{value}%" if what == "compute" else f"{value} bytes"
            text = (
                f"Cannot increase {what} allocation to {shown} due to insufficient cycles. "
                f"At least {frozen - hosted.record.cycles} additional cycles are required.\n"
                "Top up the canister with more cycles."
            )
            raise RejectError(rejects.reject(number, text))


def _visibility(name: str, value: dict[str, Any]) -> Visibility:
    ((kind, viewers),) = value.items()
    viewers = tuple(viewers or ())
    if len(viewers) > MAX_VIEWERS:
        raise _error(f"'{name}' names more than {MAX_VIEWERS} viewers.")
    return Visibility(kind, viewers)


def _variables(value: list[dict[str, str]]) -> tuple[tuple[str, str], ...]:
    variables = {item["name"]: item["value"] for item in value}
    if len(value) > MAX_VARIABLES:
        text = f"Too many environment variables: {len(value)} (max: {MAX_VARIABLES})"
        raise RejectError(rejects.bad_payload(text))
    for name, content in variables.items():
        for what, text, limit in (
            ("name", name, MAX_VARIABLE_NAME),
            ("value", content, MAX_VARIABLE_VALUE),
        ):
            if len(text.encode()) > limit:
                message = (
                    f'Environment variable {what} "{text}" exceeds the maximum allowed length '
                    f"of {limit}."
                )
                raise RejectError(rejects.bad_payload(message))
    return tuple(sorted(variables.items()))


def described(settings: Settings) -> dict[str, Any]:
    """Return the settings as the Candid value of `canister_status`."""
    described = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    described["controllers"] = list(settings.controllers)
    for name in _VISIBILITIES:
        visibility: Visibility = described[name]
        viewers = list(visibility.viewers) if visibility.kind == "allowed_viewers" else None
        described[name] = {visibility.kind: viewers}
    described["environment_variables"] = [
        {"name": name, "value": value} for name, value in settings.environment_variables
    ]
    return described


def seen_by(visibility: Visibility, caller: bytes) -> bool:
    """Tell whether somebody who is no controller may see what the visibility is about."""
    return visibility.kind == "public" or caller in visibility.viewers

"""The rejections that the subnet itself makes, in the platform's words.

The reject code is the first digit of the error code, as on the platform.
"""

from __future__ import annotations

from icgpt.principal import to_text
from icgpt.replica.messages import Reject


class RejectError(Exception):
    """Raised to answer a call with a rejection."""

    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.message)
        self.reject = reject


def reject(error: int, message: str) -> Reject:
    """Make a rejection from the platform's error number."""
    return Reject(error // 100, message, f"IC{error:04}")


def not_found(canister: bytes) -> Reject:
    """There is no such canister here."""
    return reject(301, f"Canister {to_text(canister)} not found")


def no_module(canister: bytes) -> Reject:
    """The canister is empty."""
    return reject(
        537,
        f"Error from Canister {to_text(canister)}: Attempted to execute a message, but the "
        "canister contains no Wasm module.",
    )


def stopped(canister: bytes) -> Reject:
    """The canister takes no calls."""
    return reject(508, f"Canister {to_text(canister)} is stopped")


def stopping(canister: bytes) -> Reject:
    """The canister takes no new calls."""
    return reject(509, f"Canister {to_text(canister)} is stopping")


def stop_cancelled(canister: bytes) -> Reject:
    """The canister was started while it was being stopped."""
    return reject(511, f"Canister {to_text(canister)}'s stop request cancelled")


def out_of_cycles(canister: bytes, missing: int) -> Reject:
    """The canister can't pay, or its balance would fall below the freezing threshold."""
    return reject(
        207,
        f"Canister {to_text(canister)} is out of cycles: please top up the canister with at "
        f"least {missing} additional cycles",
    )


def too_few_cycles(canister: bytes, wanted: int, attached: int) -> Reject:
    """A canister calls with less than the callee wants to have with every call."""
    return reject(
        520,
        f"Canister {to_text(canister)} requires at least {wanted} transferred cycles with a call "
        f"of another canister, and {attached} were attached.",
    )


def did_not_reply(canister: bytes) -> Reject:
    """A call ended without an answer."""
    return reject(
        506,
        f"Error from Canister {to_text(canister)}: Canister did not reply to the call",
    )


def stop_timed_out() -> Reject:
    """The canister had calls open for too long after it was to stop."""
    return reject(206, "Stop request timed out")


def uninstalled(canister: bytes) -> Reject:
    """The code that should have answered is gone."""
    return reject(406, f"Canister {to_text(canister)} has been uninstalled.")


def expired(request_id: bytes) -> Reject:
    """An ingress message waited too long."""
    return reject(
        202, f"Ingress message 0x{request_id.hex()} timed out waiting to start executing."
    )


def only_controllers(canister: bytes, method: str) -> Reject:
    """A user who is no controller asks for a controller's method."""
    return reject(
        512, f"Only controllers of canister {to_text(canister)} can call ic00 method {method}"
    )


def only_canisters(method: str) -> Reject:
    """A user calls what only canisters may call."""
    return reject(406, f"Only canisters can call ic00 method {method}")


def not_let_in() -> Reject:
    """`canister_inspect_message` did not accept the message."""
    return reject(406, "Canister rejected the message")


def cleanup_failed(canister: bytes, callback: Reject, cleanup: Reject) -> Reject:
    """A callback trapped, and so did the cleanup that was to run after it."""
    prefix = f"Error from Canister {to_text(canister)}: "
    texts = (reject.message.removeprefix(prefix) for reject in (callback, cleanup))
    message = prefix + "\n\ncall_on_cleanup also failed:\n\n".join(texts)
    return Reject(callback.code, message, callback.error_code)


def deadline_expired() -> Reject:
    """A best-effort call has no response in time."""
    return reject(601, "Call deadline has expired.")


def queries_too_deep() -> Reject:
    """A composite query calls a composite query that calls, and so on."""
    return reject(525, "Composite query calls exceeded the maximum call depth.")


def queries_too_long() -> Reject:
    """A composite query has used, with all that it has called, what it may."""
    return reject(526, "Composite query calls exceeded the instruction limit.")


def composite_in_update() -> Reject:
    """A composite query was called like an update."""
    return reject(527, "Composite query cannot be called in replicated mode")


def no_method(canister: bytes, kind: str, method: str) -> Reject:
    """A system canister has no such method."""
    return reject(
        536,
        f"Error from Canister {to_text(canister)}: Canister has no {kind} method '{method}'.",
    )


def trapped(canister: bytes, text: str) -> Reject:
    """A system canister can't go on with a call."""
    return reject(
        503,
        f"Error from Canister {to_text(canister)}: Canister called `ic0.trap` with message: "
        f"'{text}'",
    )


def no_management_method(method: str) -> Reject:
    """The management canister has no such method."""
    return reject(536, f"Management canister has no method '{method}'")


def bad_payload(text: str) -> Reject:
    """The argument of a management method can't be read or makes no sense."""
    return reject(408, text)


def not_controller(canister: bytes, controllers: tuple[bytes, ...], caller: bytes) -> Reject:
    """A caller without the right to control a canister tried to."""
    return reject(
        512,
        f"Only the controllers of the canister {to_text(canister)} can control it.\n"
        f"Canister's controllers: {' '.join(map(to_text, controllers))}\n"
        f"Sender's ID: {to_text(caller)}",
    )


def engine_failure(canister: bytes) -> Reject:
    """The replica itself failed; its log says why."""
    return reject(
        521,
        f"Error from Canister {to_text(canister)}: the replica failed to run the message; its "
        "log file has the details.",
    )

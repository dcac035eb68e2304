"""Why a message failed, in the platform's words: text, advice, reject code and `ICnnnn` code.

`Trap` is what execution raises inside; `reject` turns it into what the caller sees. The texts and
codes are the platform's own, because clients and people search for them.
"""

from __future__ import annotations

from icgpt.principal import to_text
from icgpt.replica.messages import Reject

_DOCS = "https://internetcomputer.org/docs/current/references/execution-errors#"
_GRACEFUL = (
    "Consider gracefully handling failures from this canister or altering the canister to handle "
    "exceptions."
)
_TOOLCHAIN = (
    "If you are running this canister in a test environment (e.g., dfx), make sure the test "
    "environment is up to date. Otherwise, this is likely an error with the compiler/CDK toolchain "
    "being used to build the canister. Please report the error to IC devs on the forum: "
    "https://forum.dfinity.org and include which language/CDK was used to create the canister."
)
_WRONG_MODE = (
    "Check the ICP documentation to make sure APIs are being called in the correct message types."
)


class Trap(Exception):  # noqa: N818 - the platform's word
    """A message has to end, and all that it did has to be undone."""

    def __init__(self, code: str, text: str, advice: str = "", section: str = "") -> None:
        super().__init__(text)
        self.log = ""  # what the canister's log keeps of it
        self.code = code
        self.text = text
        self.advice = f"{advice} See documentation: {_DOCS}{section}" if section else advice

    def reject(self, canister: bytes) -> Reject:
        """What the caller of the message gets."""
        message = f"Error from Canister {to_text(canister)}: {self.text}"
        if self.advice:
            message += f".\n{self.advice}"
        return Reject(5, message, self.code)


def trapped(reason: str) -> Trap:
    """The Wasm code itself trapped, or a system call hit the end of a memory."""
    trap = Trap("IC0502", f"Canister trapped: {reason}", _GRACEFUL, "trapped")
    trap.log = f"[TRAP]: {reason}"
    return trap


def called_trap(message: str) -> Trap:
    """The canister asked for the trap."""
    text = f"Canister called `ic0.trap` with message: '{message}'"
    trap = Trap("IC0503", text, _GRACEFUL, "trapped-explicitly")
    trap.log = f"[TRAP]: {message or '(no message)'}"
    return trap


def violation(text: str) -> Trap:
    """A system call was used against its contract, as only a toolchain would do."""
    return Trap("IC0504", f"Canister violated contract: {text}", _TOOLCHAIN)


def misuse(text: str) -> Trap:
    """A system call was used against its contract by the canister's author."""
    return Trap("IC0504", f"Canister violated contract: {text}")


def wrong_mode(call: str, mode: str) -> Trap:
    """A system call was made in a kind of message where it does not exist."""
    return Trap(
        "IC0504",
        f'Canister violated contract: "ic0_{call}" cannot be executed in {mode} mode',
        _WRONG_MODE,
        "calling-a-system-api-from-the-wrong-mode",
    )


def outside(what: str, start: int, length: int, size: int) -> Trap:
    """A system call pointed outside of the heap or of what it copies from."""
    return violation(f"{what}: src={start} + length={length} exceeds the slice size={size}")


def invalid_principal() -> Trap:
    """A callee's bytes are no principal."""
    return Trap("IC0504", "Canister provided invalid principal id", _TOOLCHAIN)


def out_of_cycles(canister: bytes) -> Trap:
    """More cycles were to be attached to a call than the canister has."""
    return Trap("IC0504", f"Canister {to_text(canister)} is out of cycles")


def instruction_limit(limit: int) -> Trap:
    """The message used more instructions than its kind may."""
    return Trap(
        "IC0522",
        f"Canister exceeded the limit of {limit} instructions for single message execution.",
        "Try optimizing this method to consume fewer instructions or split the work across "
        "multiple messages.",
        "instruction-limit-exceeded",
    )


def slice_overrun(limit: int) -> Trap:
    """One bulk operation was longer than a slice of execution."""
    return Trap(
        "IC0522",
        "Canister attempted to perform a large memory operation that exceeded the slice limit "
        f"{limit}.",
        "Try breaking up large copies within the canister code into smaller chunks.",
        "slice-overrun",
    )


def no_method(kind: str, name: str) -> Trap:
    """The canister does not export the method."""
    return Trap(
        "IC0536",
        f"Canister has no {kind} method '{name}'.",
        "Check that the method being called is exported by the target canister.",
        "method-not-found",
    )


def no_function(index: int) -> Trap:
    """A callback names a function that the module's table does not hold."""
    return Trap(
        "IC0513",
        f"Canister requested to invoke a non-existent Wasm function {index} from table 0",
        _TOOLCHAIN,
    )


def no_module() -> Trap:
    """Nothing is installed."""
    return Trap(
        "IC0537",
        "Attempted to execute a message, but the canister contains no Wasm module.",
        "Please install code to this canister before calling it.",
        "wasm-module-not-found",
    )


def engine_error(text: str) -> Trap:
    """Wasmtime could not run the module for a reason that is not the canister's behaviour."""
    return Trap("IC0521", f"Canister encountered a Wasm engine error: {text}")


def memory_limit(limit: int, size: int) -> Trap:
    """The heap has become larger than the controllers allow."""
    return Trap(
        "IC0539",
        f"Canister exceeded its current Wasm memory limit of {limit} bytes. The peak Wasm memory "
        f"usage was {size} bytes. If the canister reaches 4GiB, then it may stop functioning and "
        "may become unrecoverable. Please reach out to the canister owner to investigate the "
        "reason for the increased memory usage. It might be necessary to move data from the Wasm "
        "memory to the stable memory. If such high Wasm memory usage is expected and safe, then "
        "the developer can increase the Wasm memory limit in the canister settings.",
        "Try checking the canister for a possible memory leak or modifying it to use more stable "
        "memory instead of Wasm memory.",
        "wasm-memory-limit-exceeded",
    )


def growth_unpaid(size: int, missing: int) -> Trap:
    """With more memory, the balance would be below what the freezing threshold holds back."""
    return Trap(
        "IC0532",
        f"Canister cannot grow memory by {size} bytes due to insufficient cycles. At least "
        f"{missing} additional cycles are required.",
        "Try topping up the canister.",
        "insufficient-cycles-in-memory-grow",
    )


def access_limit(update: int, query: int) -> Trap:
    """The message has touched more of the stable memory than its kind may."""
    return Trap(
        "IC0524",
        "Canister exceeded memory access limits: Exceeded the limit for the number of accessed "
        "pages in the stable memory in a single message execution: limit "
        f"{update >> 10} KB for regular messages and {query >> 10} KB for queries.",
        "Try optimizing the use of stable memory so that individual messages don't need to access "
        "as much stable memory.",
        "memory-access-limit-exceeded",
    )


def no_variable(name: str) -> Trap:
    """An environment variable was asked for that is not set."""
    return Trap("IC0504", f"Environment variable {name} not found.")


def no_variable_index(index: int, count: int) -> Trap:
    """An environment variable was asked for by an index that is too high."""
    return Trap(
        "IC0504",
        f"Environment variable index {index} is out of bounds. "
        f"The number of environment variables is {count}.",
    )


def did_not_reply(canister: bytes) -> Reject:
    """A call context ended without a response."""
    return Reject(5, f"Canister {to_text(canister)} did not reply to the call", "IC0506")


def not_empty(canister: bytes) -> Reject:
    """Code was to be installed where code is installed."""
    return Reject(
        5,
        f"Canister {to_text(canister)} cannot be installed because the canister is not empty. "
        "Try installing with mode='reinstall' instead.",
        "IC0514",
    )

"""What passes between the subnet, which orders messages, and the execution of one canister.

The subnet owns everything that outlives a message and is not Wasm state: cycles, controllers, call
contexts, queues, the certified data, the timer. Execution owns module, heap, globals and stable
memory. A `Message` goes in, an `Outcome` comes out; when `Outcome.trap` is set, execution has
already rolled its own state back, and the subnet drops every effect the outcome names.

Principals are raw bytes here, times nanoseconds since 1970, cycles plain integers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    """The entry point that a message runs, named as the interface specification names them."""

    START = "start"
    INIT = "canister_init"
    PRE_UPGRADE = "canister_pre_upgrade"
    POST_UPGRADE = "canister_post_upgrade"
    INSPECT = "canister_inspect_message"
    UPDATE = "canister_update"
    QUERY = "canister_query"
    COMPOSITE_QUERY = "canister_composite_query"
    REPLY_CALLBACK = "reply_callback"
    REJECT_CALLBACK = "reject_callback"
    CLEANUP = "cleanup"
    TIMER = "canister_global_timer"
    HEARTBEAT = "canister_heartbeat"
    LOW_WASM_MEMORY = "canister_on_low_wasm_memory"


@dataclass(frozen=True)
class Callback:
    """A function of the module's table and the value it is called with (`env`)."""

    function: int
    env: int


@dataclass(frozen=True)
class OutgoingCall:
    """A call that the canister performs once its message succeeds."""

    callee: bytes
    method: str
    arg: bytes
    cycles: int
    on_reply: Callback
    on_reject: Callback
    on_cleanup: Callback | None = None
    timeout_seconds: int | None = None


@dataclass(frozen=True)
class Reject:
    """A reject response: the specification's code 1 to 6, a text, and the platform's `ICnnnn`."""

    code: int
    message: str
    error_code: str = ""


@dataclass(frozen=True)
class Environment:
    """What a canister may ask about itself and the world while a message runs."""

    canister_id: bytes
    time: int
    balance: int
    controllers: tuple[bytes, ...]
    version: int
    status: int = 1  # 1 running, 2 stopping, 3 stopped
    subnet_id: bytes = b""
    root_key: bytes = b""
    variables: tuple[tuple[str, str], ...] = ()
    timer: int = 0  # the deadline that is set, in ns; 0 when none is
    frozen: int = 0  # cycles that the freezing threshold holds back
    frozen_gib: int = 0  # how many more it would hold back for a GiB more of memory
    spare_memory: int = 0  # bytes that are allocated, thus paid for, and not used so far
    memory_limit: int = 0  # of the heap, in bytes; 0 for none


@dataclass(frozen=True)
class Message:
    """One message to run. Fields that a kind has no use for keep their defaults."""

    kind: Kind
    environment: Environment
    method: str = ""
    arg: bytes = b""  # the argument, or in a reply callback the reply
    caller: bytes = b"\x04"
    cycles: int = 0  # attached and still acceptable, or in a callback refunded
    callback: Callback | None = None
    reject: Reject | None = None  # in a reject callback
    answered: bool = False  # the call context has its response already
    deadline: int = 0  # of a best-effort call; 0 when there is none
    context_instructions: int = 0  # spent by the call context in earlier messages
    replicated: bool = True
    certificate: bytes | None = None  # for `data_certificate` in queries


@dataclass
class Outcome:
    """What a message did. Exactly one of `reply` and `reject` is set if it answered."""

    instructions: int = 0  # all that is charged
    page_instructions: int = 0  # the part of it that is for touched pages of memory
    trap: Reject | None = None
    reply: bytes | None = None
    reject: Reject | None = None
    accepted: bool = False  # `accept_message` was called (INSPECT)
    calls: list[OutgoingCall] = field(default_factory=list)
    cycles_accepted: int = 0
    cycles_burned: int = 0
    certified_data: bytes | None = None
    timer: int | None = None  # a new deadline in ns (0 switches it off); None leaves it as it is
    logs: list[tuple[int, bytes]] = field(default_factory=list)  # (time, text), also on a trap

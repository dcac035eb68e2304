"""The subnet's own state: canisters, call contexts, callbacks, queued work.

Everything here is plain data that `state.py` can write down; what Wasm code holds (heap, stable
memory, module) belongs to the execution's folder of the canister.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from icgpt.replica.messages import Callback, Outcome, Reject

DEFAULT_FREEZING_THRESHOLD = 2_592_000
DEFAULT_RESERVED_LIMIT = 5_000_000_000_000
DEFAULT_WASM_MEMORY_LIMIT = 3 << 30
DEFAULT_LOG_LIMIT = 4_096
LOG_LINE = 40  # bytes that a line of the log counts besides its text


@dataclass(frozen=True)
class Visibility:
    """Who may see something: "controllers", "public" or "allowed_viewers"."""

    kind: str = "controllers"
    viewers: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What a canister's controllers set."""

    controllers: tuple[bytes, ...] = ()
    compute_allocation: int = 0
    memory_allocation: int = 0
    freezing_threshold: int = DEFAULT_FREEZING_THRESHOLD
    reserved_cycles_limit: int = DEFAULT_RESERVED_LIMIT
    wasm_memory_limit: int = DEFAULT_WASM_MEMORY_LIMIT
    wasm_memory_threshold: int = 0
    log_memory_limit: int = DEFAULT_LOG_LIMIT
    minimum_incoming_canister_call_cycles: int = 0
    log_visibility: Visibility = Visibility()
    snapshot_visibility: Visibility = Visibility()
    status_visibility: Visibility = Visibility()
    environment_variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Origin:
    """Who waits for an answer: a user (request id), a canister (its callback), or nobody."""

    request_id: bytes = b""
    canister: bytes = b""
    callback: int = 0


@dataclass
class CallContext:
    """A call that a canister has begun to answer."""

    id: int
    origin: Origin
    caller: bytes
    cycles: int  # attached and not accepted so far
    root: bytes = b""  # id of the ingress message that all this is done for
    deadline: int = 0
    answered: bool = False
    outstanding: int = 0  # calls made from this context that have no response yet
    instructions: int = 0


@dataclass(frozen=True)
class PendingCall:
    """A call that a canister has made: what to run when the response comes."""

    context: int
    on_reply: Callback
    on_reject: Callback
    on_cleanup: Callback | None = None
    deadline: int = 0  # of a best-effort call, in ns


@dataclass(frozen=True)
class Task:
    """A piece of work in the queue: "call", "response", "timer" or "heartbeat"."""

    kind: str
    canister: bytes
    origin: Origin = Origin()
    caller: bytes = b""
    method: str = ""
    arg: bytes = field(default=b"", repr=False)
    cycles: int = 0  # attached, or in a response refunded
    deadline: int = 0
    expiry: int = 0  # of an ingress message
    root: bytes = b""
    payer: bytes = b""  # of an ingress message: the canister that it is about
    callback: int = 0  # of a response
    reject: Reject | None = None  # of a response; without one, `arg` is the reply

    @property
    def key(self) -> TaskKey:
        """By what the task is found again."""
        return TaskKey(self.kind, self.canister, self.origin, self.callback)


@dataclass(frozen=True)
class TaskKey:
    """By what a task is found again."""

    kind: str
    canister: bytes
    origin: Origin
    callback: int


@dataclass(frozen=True)
class Author:
    """Who has changed something about a canister."""

    id: bytes
    is_canister: bool = False
    version: int | None = None  # of the author, as it says itself


@dataclass
class Change:
    """A change of a canister, named as in Candid; fields that a kind has no use for are empty."""

    kind: str
    time: int = 0
    version: int = 0
    author: Author = Author(b"")
    controllers: tuple[bytes, ...] = ()
    variables_hash: bytes = b""
    mode: str = ""  # of a deployment; or a snapshot's source
    module_hash: bytes = b""
    snapshot: bytes = b""
    snapshot_version: int = 0
    snapshot_time: int = 0


@dataclass(frozen=True)
class Note:
    """What a commit of a canister's memory was about, for the case that nothing else is known."""

    kind: str  # of the message, or "install"
    task: TaskKey
    outcome: Outcome
    first: Outcome | None = None  # of the callback that a cleanup belongs to
    mode: str = ""  # of an installation
    size: int = 0  # of its module
    author: Author = Author(b"")


@dataclass(frozen=True)
class StopRequest:
    """Somebody waits until the canister has stopped."""

    origin: Origin
    cycles: int
    since: int = 0


@dataclass(frozen=True)
class Snapshot:
    """A kept state of a canister; its memories and module are files."""

    taken_at: int
    version: int
    source: str  # "taken_from_canister" or "metadata_upload"
    module_bytes: int
    heap_bytes: int
    stable_bytes: int
    globals: tuple[tuple[int, bytes], ...] = ()  # kind and raw value, as wasmtime has them
    certified_data: bytes = b""
    timer: int = 0
    low_memory: str = "condition_not_satisfied"
    chunks: dict[bytes, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        memory = self.heap_bytes + self.stable_bytes + self.module_bytes
        return memory + sum(self.chunks.values())


@dataclass
class CanisterRecord:
    """A canister as the subnet sees it."""

    id: bytes
    settings: Settings
    cycles: int
    version: int = 0
    commit: int = 0  # of the canister's folder: the last one whose other effects are known here
    status: str = "running"  # "stopping", "stopped"
    timer: int = 0
    certified_data: bytes = b""
    module_bytes: int = 0
    charged_until: int = 0
    created: int = 0  # when, in ns; 0 in states of before this was kept
    deployed: int = 0  # when its code or a snapshot was put there last
    contexts: dict[int, CallContext] = field(default_factory=dict)
    calls: dict[int, PendingCall] = field(default_factory=dict)
    stop_requests: list[StopRequest] = field(default_factory=list)
    log: list[tuple[int, int, bytes]] = field(default_factory=list)  # (index, time, text)
    next_log_index: int = 0
    chunks: dict[bytes, int] = field(default_factory=dict)  # hash of a stored chunk: its length
    snapshots: dict[bytes, Snapshot] = field(default_factory=dict)
    next_snapshot: int = 0
    changes: list[Change] = field(default_factory=list)
    total_changes: int = 0
    low_memory: str = "condition_not_satisfied"  # "ready", "executed": of on_low_wasm_memory
    queries: int = 0
    query_instructions: int = 0
    query_request_bytes: int = 0
    query_response_bytes: int = 0

    def add_log(self, entries: list[tuple[int, bytes]]) -> None:
        """Append to the log, dropping the oldest lines beyond the limit."""
        limit = self.settings.log_memory_limit
        for time, text in entries:
            self.log.append((self.next_log_index, time, text[: max(0, limit - LOG_LINE)]))
            self.next_log_index += 1
        excess = self.log_bytes - limit
        gone = 0
        while excess > 0:
            excess -= len(self.log[gone][2]) + LOG_LINE
            gone += 1
        del self.log[:gone]

    @property
    def log_bytes(self) -> int:
        """What the log takes of its limit."""
        return sum(len(text) + LOG_LINE for _, _, text in self.log)


@dataclass
class MessageRecord:
    """What became of an ingress message, and what it took, with all that followed from it."""

    request_id: bytes
    canister: bytes
    method: str
    received: int
    status: str = "received"
    instructions: int = 0
    page_instructions: int = 0  # the part of them that is for touched pages
    messages: int = 0


@dataclass(frozen=True)
class Entry:
    """The state of one request: "received", "processing", "replied", "rejected" or "done"."""

    id: bytes
    sender: bytes
    receiver: bytes
    expiry: int
    status: str = "received"
    reply: bytes = field(default=b"", repr=False)
    reject: Reject | None = None


@dataclass(frozen=True)
class Block:
    """A move of tokens between two accounts; `created` is 0 unless the sender gave a time."""

    source: bytes
    target: bytes
    amount: int
    memo: bytes = b""
    created: int = 0


@dataclass(frozen=True)
class Allowance:
    """What a spender may still move out of somebody's account, until when."""

    amount: int
    expires: int


@dataclass
class LedgerState:
    """A ledger's balances by account, its last blocks, and which of them have paid for cycles."""

    balances: dict[bytes, int] = field(default_factory=dict)
    allowances: dict[bytes, Allowance] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    first_block: int = 0
    notified: list[int] = field(default_factory=list)


@dataclass
class Ledgers:
    """The tokens of the network."""

    icp: LedgerState = field(default_factory=LedgerState)
    cycles: LedgerState = field(default_factory=LedgerState)


@dataclass
class Everything:
    """All that has to survive, as of the step of that number."""

    sequence: int = 0
    next_canister: int = 0
    next_id: int = 1
    canisters: list[CanisterRecord] = field(default_factory=list)
    queue: list[Task] = field(default_factory=list)
    inbox: list[Task] = field(default_factory=list)  # let in, and not in the queue so far
    entries: list[Entry] = field(default_factory=list)
    messages: list[MessageRecord] = field(default_factory=list)
    ledgers: Ledgers = field(default_factory=Ledgers)


@dataclass(frozen=True)
class QueueStep:
    """A change of the queue: "push", "remove", "take" (from the inbox) or "drop" (likewise)."""

    kind: str
    request_id: bytes = b""
    task: Task | None = None
    index: int = 0  # of what is removed


@dataclass(frozen=True)
class OpenStep:
    """A change of what a canister has open: a call context, or a call it has made."""

    canister: bytes
    id: int
    context: CallContext | None = None
    call: PendingCall | None = None  # with neither, it is over


@dataclass
class Step:
    """What has changed, for the log. The canisters' records are without what they have open."""

    sequence: int = 0
    next_canister: int = 0
    next_id: int = 0  # 0: neither has changed
    let_in: Task | None = None
    canisters: list[CanisterRecord] = field(default_factory=list)
    open: list[OpenStep] = field(default_factory=list)
    removed: list[bytes] = field(default_factory=list)
    queue: list[QueueStep] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    forgotten: list[bytes] = field(default_factory=list)
    messages: list[MessageRecord] = field(default_factory=list)
    ledgers: Ledgers | None = None

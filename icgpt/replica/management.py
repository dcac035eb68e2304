"""The management canister: creating, installing, configuring, stopping and deleting canisters.

Called by users (after `check_ingress` has let the message in) and by canisters. Every method gets
a `Caller` and its decoded argument, and returns the reply's bytes; a method that can't go on
raises RejectError with the platform's code and words.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

from icgpt.candid import BLOB, CandidError, Type, decode, encode
from icgpt.principal import MANAGEMENT, to_text
from icgpt.replica import (
    canister_history,
    chunks,
    fees,
    rejects,
    snapshot_types,
    snapshots,
)
from icgpt.replica import management_types as types
from icgpt.replica.execution import InvalidModule
from icgpt.replica.messages import Outcome
from icgpt.replica.records import (
    Author,
    CanisterRecord,
    Change,
    Note,
    Origin,
    Settings,
    StopRequest,
    Task,
    TaskKey,
)
from icgpt.replica.rejects import RejectError
from icgpt.replica.routing import EMPTY_REPLY, Hosted, Router
from icgpt.replica.settings import changed, check_cycles, described, seen_by

PROVISIONAL_CYCLES = 100_000_000_000_000
HISTORY_ENTRY = 120  # bytes that a change in the history counts
MAX_CYCLES = (1 << 128) - 1
# Of an argument, bytes of blobs not counted; the server decodes arguments between other requests.
MAX_VALUES = 50_000
FIRST_CANISTER = 0xFFFF_FFFF_FFE0_0000


def canister_id(index: int) -> bytes:
    """Return the principal of the n-th canister of the local network."""
    return (FIRST_CANISTER + index).to_bytes(8, "big") + b"\x01\x01"


@dataclass
class Caller:
    """Who calls, with what; `refund` is what goes back with the answer."""

    id: bytes
    origin: Origin
    refund: int
    root: bytes

    @property
    def key(self) -> TaskKey:
        """By what the call's task is found again."""
        return TaskKey("call", MANAGEMENT, self.origin, 0)

    def author(self, version: int | None = None) -> Author:
        """Return the caller as the author of a change."""
        return Author(self.id, bool(self.origin.canister), version)


@dataclass(frozen=True)
class Method:
    """A method: its argument, which field names the canister it is about, who may call it."""

    argument: Type | None
    run: Callable[[Management, Caller, Any], bytes | None]
    subject: str = "canister_id"
    users: str = "controllers"  # "controllers", "anyone" or "nobody", of callers that are users


class Management:
    """The methods; `call` runs one of them on the worker thread."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def call(self, task: Task) -> None:
        """Run one call and answer it, unless it is answered later."""
        caller = Caller(task.caller, task.origin, task.cycles, task.root)
        try:
            method = METHODS.get(task.method)
            if method is None:
                raise RejectError(rejects.no_management_method(task.method))
            reply = method.run(self, caller, decode_argument(method, task.arg))
        except RejectError as error:
            self.router.respond(task.origin, b"", error.reject, task.cycles, task.root)
            return
        if reply is not None:
            self.router.respond(task.origin, reply, None, caller.refund, task.root)

    def hosted(self, canister: bytes) -> Hosted:
        """Return a canister of this subnet."""
        hosted = self.router.hosted.get(canister)
        if hosted is None:
            raise RejectError(rejects.not_found(canister))
        self.router.touched[canister] = None
        return hosted

    def controlled(self, caller: Caller, canister: bytes, *, itself: bool = False) -> Hosted:
        """Return a canister that the caller controls; `itself`: or is."""
        hosted = self.hosted(canister)
        controllers = hosted.record.settings.controllers
        if caller.id not in controllers and not (itself and caller.id == canister):
            raise RejectError(rejects.not_controller(canister, controllers, caller.id))
        return hosted

    # --- creation and settings

    def create(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Create a canister from the cycles that came with the call."""
        cycles = caller.refund
        if cycles < fees.CREATE:
            text = (
                f"Creating a canister requires a fee of {fees.CREATE} that is deducted from the "
                f"canister's initial balance but only {cycles} cycles were received with the "
                "create_canister request."
            )
            raise RejectError(rejects.reject(403, text))
        author = caller.author(argument["sender_canister_version"])
        amount = cycles - fees.CREATE
        created = self.add(caller.id, argument["settings"], amount, None, author)
        caller.refund = 0
        return encode([types.CANISTER], [{"canister_id": created}])

    def provisional_create(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Create a canister with as many cycles as wanted."""
        amount = argument["amount"]
        cycles = PROVISIONAL_CYCLES if amount is None else _cycles(amount)
        wanted, specified = argument["settings"], argument["specified_id"]
        author = caller.author(argument["sender_canister_version"])
        created = self.add(caller.id, wanted, cycles, specified, author)
        return encode([types.CANISTER], [{"canister_id": created}])

    def add(
        self,
        caller: bytes,
        wanted: dict[str, Any] | None,
        cycles: int,
        specified: bytes | None,
        author: Author | None = None,
    ) -> bytes:
        """Add a canister, with the caller as controller unless the settings say otherwise.

        Returns its id.
        """
        settings = changed(Settings(controllers=(caller,)), wanted or {})
        if specified is None:
            while canister_id(self.router.next_canister) in self.router.hosted:
                self.router.next_canister += 1
            specified = canister_id(self.router.next_canister)
            self.router.next_canister += 1
        elif len(specified) != 10 or not specified.endswith(b"\x01\x01"):
            text = f"The `specified_id` {to_text(specified)} is invalid: it is no canister id."
            raise RejectError(rejects.bad_payload(text))
        elif specified in self.router.views:
            text = (
                f"Unsuccessful canister creation: canister id {to_text(specified)} already exists."
            )
            raise RejectError(rejects.reject(205, text))
        record = CanisterRecord(specified, settings, cycles, charged_until=self.router.now())
        author = author or Author(caller)
        canister_history.note(
            record, author, record.charged_until, canister_history.created(record)
        )
        self.router.host(record)
        return specified

    def update_settings(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Change what the settings name."""
        hosted = self.controlled(caller, argument["canister_id"])
        record = hosted.record
        settings = changed(record.settings, argument["settings"])
        check_cycles(hosted, settings)
        record.settings = settings
        record.version += 1
        if argument["settings"]["controllers"] is not None:
            self.note(
                hosted,
                caller.author(argument["sender_canister_version"]),
                Change("controllers_change", controllers=settings.controllers),
            )
        self.router.watch_memory(hosted)
        self.router.publish(hosted)
        hosted.applied = hosted.code.commit
        return EMPTY_REPLY

    def note(self, hosted: Hosted, author: Author, change: Change) -> None:
        """Add a change to the canister's history."""
        canister_history.note(hosted.record, author, self.router.now(), change)

    def provisional_top_up(self, _caller: Caller, argument: dict[str, Any]) -> bytes:
        """Add cycles out of thin air."""
        record = self.hosted(argument["canister_id"]).record
        record.cycles = min(record.cycles + _cycles(argument["amount"]), MAX_CYCLES)
        return EMPTY_REPLY

    def deposit(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Give a canister the cycles that came with the call."""
        self.hosted(argument["canister_id"]).record.cycles += caller.refund
        caller.refund = 0
        return EMPTY_REPLY

    # --- code

    def install(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Install, reinstall or upgrade from a module in one piece."""
        hosted = self.controlled(caller, argument["canister_id"])
        return self.put_code(caller, hosted, argument, argument["wasm_module"])

    def install_chunked(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Install from chunks that were uploaded before."""
        hosted = self.controlled(caller, argument["target_canister"])
        store = hosted
        if argument["store_canister"] is not None:
            store = self.controlled(caller, argument["store_canister"], itself=True)
        hashes = [item["hash"] for item in argument["chunk_hashes_list"]]
        folder = self.chunk_folder(store)
        wasm = chunks.assemble(folder, store.record, hashes, argument["wasm_module_hash"])
        return self.put_code(caller, hosted, argument, wasm)

    def put_code(
        self, caller: Caller, hosted: Hosted, argument: dict[str, Any], wasm: bytes
    ) -> bytes:
        """Install a module in the wanted mode; on failure everything stays as it was."""
        record, code, arg = hosted.record, hosted.code, argument["arg"]
        author = caller.author(argument["sender_canister_version"])
        ((tag, options),) = argument["mode"].items()
        how = cast(Literal["install", "reinstall", "upgrade"], tag)
        if how == "install" and code.installed:
            text = (
                f"Canister {to_text(record.id)} cannot be installed because the canister is not "
                "empty. Try installing with mode='reinstall' instead."
            )
            raise RejectError(rejects.reject(514, text))
        if how == "upgrade" and not code.installed:
            raise RejectError(rejects.no_module(record.id))
        if hosted.available_cycles < fees.MESSAGE:
            missing = fees.MESSAGE - hosted.available_cycles
            raise RejectError(rejects.out_of_cycles(record.id, missing))
        if options and (options["wasm_memory_persistence"] or {}).keys() == {"keep"}:
            text = (
                "Invalid upgrade option: The `wasm_memory_persistence: opt Keep` upgrade option "
                "requires that the new canister module supports enhanced orthogonal persistence."
            )
            raise RejectError(rejects.reject(504, text))
        environment = self.router.environment(hosted, self.router.now())
        skip = bool(options and options["skip_pre_upgrade"])

        def seal(outcome: Outcome) -> bytes:
            note = Note("install", caller.key, outcome, None, how, len(wasm), author)
            with self.router.lock:
                return self.router.seal(hosted, note)

        try:
            with self.router.aside():
                outcome = code.install(wasm, arg, caller.id, environment, how, skip, seal)
        except InvalidModule as error:
            text = (
                f"Error from Canister {to_text(record.id)}: Canister's Wasm module is not valid: "
                f"{error}"
            )
            raise RejectError(rejects.reject(505, text)) from error
        self.router.account(caller.root, outcome)
        record.cycles = max(0, record.cycles - fees.execution(outcome.instructions))
        record.add_log(outcome.logs)
        if outcome.trap is not None:
            raise RejectError(outcome.trap)
        self.after_install(hosted, author, outcome, how, len(wasm))
        return EMPTY_REPLY

    def after_install(
        self, hosted: Hosted, author: Author, outcome: Outcome, how: str, size: int
    ) -> None:
        """Apply what an installation changes outside the canister's own memory."""
        record = hosted.record
        record.version += 1
        record.module_bytes = size
        record.timer = outcome.timer or 0
        if how != "upgrade":
            record.certified_data = b""
        if outcome.certified_data is not None:
            record.certified_data = outcome.certified_data
        digest = hosted.code.module_hash or b""
        self.note(hosted, author, Change("code_deployment", mode=how, module_hash=digest))
        self.router.watch_memory(hosted)
        self.router.publish(hosted)
        hosted.applied = hosted.code.commit

    def uninstall(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Remove code and memory; what was not answered is rejected."""
        hosted = self.controlled(caller, argument["canister_id"])
        self.strip(hosted, caller.author(argument["sender_canister_version"]))
        return EMPTY_REPLY

    def strip(self, hosted: Hosted, author: Author) -> None:
        """Remove code and memory, on demand or because no cycles are left to pay for them."""
        hosted.code.uninstall()
        record = hosted.record
        record.version += 1
        record.module_bytes = record.timer = 0
        record.certified_data = b""
        chunks.clear(self.chunk_folder(hosted), record)
        record.low_memory = "condition_not_satisfied"
        self.note(hosted, author, Change("code_uninstall"))
        self.router.drop_contexts(hosted)
        self.router.publish(hosted)
        hosted.applied = hosted.code.commit

    def chunk_folder(self, hosted: Hosted) -> Path:
        """Return where a canister's uploaded chunks are kept."""
        return self.router.folder / "chunks" / to_text(hosted.record.id)

    def upload_chunk(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Keep a piece of a module for a later installation."""
        hosted = self.controlled(caller, argument["canister_id"], itself=True)
        digest = chunks.store(self.chunk_folder(hosted), hosted.record, argument["chunk"])
        return encode([types.CHUNK_HASH], [{"hash": digest}])

    def stored_chunks(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """List the hashes of the kept pieces."""
        hosted = self.controlled(caller, argument["canister_id"], itself=True)
        return encode([types.CHUNKS], [[{"hash": digest} for digest in hosted.record.chunks]])

    def clear_chunks(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Drop all kept pieces."""
        hosted = self.controlled(caller, argument["canister_id"], itself=True)
        chunks.clear(self.chunk_folder(hosted), hosted.record)
        return EMPTY_REPLY

    # --- running, status, the end

    def start(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Let a canister take calls again."""
        hosted = self.controlled(caller, argument["canister_id"])
        record = hosted.record
        record.status = "running"
        for request in record.stop_requests:
            reject = rejects.stop_cancelled(record.id)
            self.router.respond(request.origin, b"", reject, request.cycles, b"")
        record.stop_requests.clear()
        return EMPTY_REPLY

    def stop(self, caller: Caller, argument: dict[str, Any]) -> bytes | None:
        """Take no new calls; answered once the open ones are done."""
        hosted = self.controlled(caller, argument["canister_id"])
        record = hosted.record
        if record.status == "stopped":
            return EMPTY_REPLY
        record.status = "stopping"
        record.stop_requests.append(StopRequest(caller.origin, caller.refund, self.router.now()))
        self.router.settle_stop(hosted)
        return None

    def delete(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Delete a stopped canister, with its cycles."""
        hosted = self.controlled(caller, argument["canister_id"])
        record = hosted.record
        if caller.id == record.id:
            text = f"Canister {to_text(record.id)} cannot delete itself."
            raise RejectError(rejects.reject(512, text))
        if record.status != "stopped":
            text = f"Canister {to_text(record.id)} must be stopped before it is deleted."
            raise RejectError(rejects.reject(510, text))
        chunks.clear(self.chunk_folder(hosted), record)
        self.router.remove(hosted)
        return EMPTY_REPLY

    def status(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Tell a controller how a canister stands."""
        canister = argument["canister_id"]
        visibility = self.hosted(canister).record.settings.status_visibility
        if seen_by(visibility, caller.id):
            hosted = self.hosted(canister)
        else:
            hosted = self.controlled(caller, canister, itself=True)
        record, code = hosted.record, hosted.code
        memory = dict.fromkeys(types.STATUS_MEMORY, 0) | {
            "wasm_memory_size": code.heap_bytes,
            "stable_memory_size": code.stable_bytes,
            "wasm_binary_size": record.module_bytes,
            "wasm_chunk_store_size": sum(record.chunks.values()),
            "log_memory_store_size": record.log_bytes,
            "snapshots_size": hosted.snapshot_bytes,
            "global_memory_size": 8 * len(code.globals),
            "custom_sections_size": code.custom_bytes,
            "canister_history_size": len(record.changes) * HISTORY_ENTRY,
        }
        queries = {
            "num_calls_total": record.queries,
            "num_instructions_total": record.query_instructions,
            "request_payload_bytes_total": record.query_request_bytes,
            "response_payload_bytes_total": record.query_response_bytes,
        }
        status = {
            "status": {record.status: None},
            "settings": described(record.settings),
            "module_hash": code.module_hash if code.installed else None,
            "memory_size": hosted.memory,
            "cycles": hosted.balance,
            "reserved_cycles": 0,
            "idle_cycles_burned_per_day": hosted.idle_per_second * 86_400,
            "version": record.version,
            "ready_for_migration": False,
            "memory_metrics": memory,
            "query_stats": queries,
        }
        return encode([types.STATUS], [status])

    def logs(self, caller: Caller, argument: dict[str, Any]) -> bytes:
        """Return the canister's log to whoever may see it."""
        hosted = self.hosted(argument["canister_id"])
        settings = hosted.record.settings
        if caller.id not in settings.controllers and not seen_by(
            settings.log_visibility, caller.id
        ):
            text = f"Caller {to_text(caller.id)} is not allowed to access canister logs"
            raise RejectError(rejects.reject(406, text))
        records = [
            {"idx": index, "timestamp_nanos": time, "content": text}
            for index, time, text in hosted.record.log
            if _wanted(argument["filter"], index, time)
        ]
        return encode([types.LOGS], [{"canister_log_records": records}])

    def subnet_info(self, _caller: Caller, argument: dict[str, Any]) -> bytes:
        """Tell what software the subnet runs."""
        if argument["subnet_id"] != self.router.subnet_id:
            raise RejectError(rejects.reject(404, "There is no such subnet here."))
        found = {"replica_version": version("icgpt"), "registry_version": 1}
        return encode([types.SUBNET_INFO], [found])

    def raw_rand(self, _caller: Caller, _argument: None) -> bytes:
        """Return 32 random bytes."""
        return encode([BLOB], [secrets.token_bytes(32)])

    # --- what users ask before a message is let in

    def check_ingress(self, sender: bytes, method_name: str, arg: bytes) -> bytes:
        """Raise unless a user may send this message; return the canister that it is about.

        May be called from any thread.
        """
        method = METHODS.get(method_name)
        if method is None:
            raise RejectError(rejects.no_management_method(method_name))
        if method.users == "nobody":
            raise RejectError(rejects.only_canisters(method_name))
        argument = decode_argument(method, arg)
        subject: bytes = argument[method.subject] if method.subject else MANAGEMENT
        if subject != MANAGEMENT:
            view = self.router.views.get(subject)
            if view is None:
                raise RejectError(rejects.not_found(subject))
            if method.users == "controllers" and sender not in view.controllers:
                raise RejectError(rejects.only_controllers(subject, method_name))
        return subject

    def query_subject(self, method_name: str, arg: bytes) -> bytes:
        """Return the canister that a user's query is about; the management canister if none."""
        method = METHODS.get(method_name)
        if method is None or not method.subject:
            return MANAGEMENT
        try:
            subject: bytes = decode_argument(method, arg)[method.subject]
        except RejectError:
            return MANAGEMENT  # the query itself tells what is wrong with the argument
        return subject

    def query(self, sender: bytes, method_name: str, arg: bytes) -> bytes:
        """Answer a user's query: for the log or the status of a canister. For any thread."""
        method = METHODS.get(method_name)
        if method is None or method.run not in (Management.logs, Management.status):
            raise RejectError(rejects.reject(536, f"Query method {method_name} not found."))
        caller = Caller(sender, Origin(), 0, b"")
        return method.run(self, caller, decode_argument(method, arg)) or b""


def _wanted(selection: dict[str, Any] | None, index: int, time: int) -> bool:
    """Tell whether a line of the log was asked for."""
    for kind, bounds in (selection or {}).items():
        value = index if kind == "by_idx" else time
        return bool(bounds["start"] <= value < bounds["end"])
    return True


def _cycles(amount: int) -> int:
    if amount > MAX_CYCLES:
        raise RejectError(rejects.bad_payload(f"an amount of cycles is at most {MAX_CYCLES}"))
    return amount


def decode_argument(method: Method, arg: bytes) -> Any:
    """Decode a method's one argument."""
    expected = [method.argument] if method.argument is not None else []
    try:
        values = decode(arg, expected, max_values=MAX_VALUES)
    except CandidError as error:
        raise RejectError(rejects.bad_payload(f"Error decoding candid: {error}")) from error
    return values[0] if values else None


METHODS = {
    "create_canister": Method(types.CREATE, Management.create, "", "nobody"),
    "provisional_create_canister_with_cycles": Method(
        types.PROVISIONAL_CREATE, Management.provisional_create, "", "anyone"
    ),
    "provisional_top_up_canister": Method(
        types.TOP_UP, Management.provisional_top_up, users="anyone"
    ),
    "update_settings": Method(types.UPDATE_SETTINGS, Management.update_settings),
    "install_code": Method(types.INSTALL, Management.install),
    "install_chunked_code": Method(
        types.INSTALL_CHUNKED, Management.install_chunked, "target_canister"
    ),
    "upload_chunk": Method(types.UPLOAD_CHUNK, Management.upload_chunk),
    "stored_chunks": Method(types.CANISTER, Management.stored_chunks),
    "clear_chunk_store": Method(types.CANISTER, Management.clear_chunks),
    "uninstall_code": Method(types.CHANGE, Management.uninstall),
    "start_canister": Method(types.CANISTER, Management.start),
    "stop_canister": Method(types.CANISTER, Management.stop),
    "delete_canister": Method(types.CANISTER, Management.delete),
    "canister_status": Method(types.CANISTER, Management.status, users="anyone"),
    "fetch_canister_logs": Method(types.FETCH_LOGS, Management.logs, users="nobody"),
    "deposit_cycles": Method(types.CANISTER, Management.deposit, users="nobody"),
    "take_canister_snapshot": Method(snapshot_types.TAKE, snapshots.take),
    "load_canister_snapshot": Method(snapshot_types.ONE, snapshots.load),
    "list_canister_snapshots": Method(types.CANISTER, snapshots.listed, users="anyone"),
    "delete_canister_snapshot": Method(snapshot_types.ONE, snapshots.delete),
    "read_canister_snapshot_metadata": Method(
        snapshot_types.ONE, snapshots.read_metadata, users="anyone"
    ),
    "read_canister_snapshot_data": Method(
        snapshot_types.READ_DATA, snapshots.read_data, users="anyone"
    ),
    "upload_canister_snapshot_metadata": Method(
        snapshot_types.UPLOAD_METADATA, snapshots.upload_metadata
    ),
    "upload_canister_snapshot_data": Method(snapshot_types.UPLOAD_DATA, snapshots.upload_data),
    "canister_info": Method(canister_history.INFO_ARGUMENT, canister_history.info, users="nobody"),
    "canister_metadata": Method(
        canister_history.METADATA_ARGUMENT, canister_history.metadata, users="nobody"
    ),
    "subnet_info": Method(types.SUBNET, Management.subnet_info, "", "nobody"),
    "raw_rand": Method(None, Management.raw_rand, "", "nobody"),
}

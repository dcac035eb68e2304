"""What the system calls do: one `SystemApi` a canister, one method a function of `ic0`.

A method gets its arguments as unsigned integers (see `binding`), checks every pointer against the
heap before it touches memory, and raises `errors.Trap` when the specification says trap. What the
message does to the world outside of its memories is gathered here and becomes its `Outcome`.
Charges: the fixed part is taken by `binding`, the part for each byte here.
"""

# ruff: noqa: D102 - a method is the system call that it is named after

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from icgpt.replica import costs, errors
from icgpt.replica.ic0 import mode
from icgpt.replica.messages import Callback, Kind, Message, Outcome, OutgoingCall, Reject
from icgpt.replica.weights import BYTE_TRANSMISSION, LOG_CAPACITY, SLICE_LIMIT

if TYPE_CHECKING:
    from icgpt.replica.instance import Instance
    from icgpt.replica.stable import StableMemory

MAX_REPLY = 2 << 20  # also of arguments of calls between canisters
MAX_QUERY_REPLY = 3 << 20
MAX_PRINCIPAL = 29
MAX_TRAP_TEXT = 16 << 10
MAX_LOGS = 1 << 20  # bytes that one message may log
SETTLE_AT = 1 << 20  # charges that may wait before the module's own counter is told

_PAGE = 1 << 16
_LIMIT_32 = 1 << 16  # pages that 32-bit calls can address
_M32 = (1 << 32) - 1
_M64 = (1 << 64) - 1


class SystemApi:
    """The state of the running message, and the system calls on it."""

    def __init__(self) -> None:
        self.instance: Instance
        self.stable: StableMemory
        self.failure: BaseException | None = None

    # -- one message ---------------------------------------------------------------------------

    def begin(self, message: Message, limit: int) -> None:
        """Set everything up for a message that may use `limit` instructions."""
        self.message = message
        self.environment = message.environment
        self.mode, self.mode_name = mode(message)
        self.limit = limit
        self.waiting = 0  # charges that the module's counter does not know yet
        self.failure = None
        self.outcome = Outcome()
        self.arg = bytes(message.arg)
        system = message.kind in (Kind.TIMER, Kind.HEARTBEAT)
        self.caller = b"" if system else message.caller
        self.balance = message.environment.balance
        self.available = message.cycles
        self.answered = message.answered
        self.reply: list[bytes] = []
        self.reply_size = 0
        self.max_reply = MAX_QUERY_REPLY if self.mode in ("NRQ", "CQ") else MAX_REPLY
        self.call: _PendingCall | None = None
        self.log_room = LOG_CAPACITY
        self.logged = 0

    def charge(self, amount: int) -> None:
        """Charge instructions; traps when the message has none left."""
        self.waiting += amount
        if self.waiting >= SETTLE_AT:
            self.settle()

    def settle(self) -> None:
        """Take the waiting charges off the module's counter."""
        left = self.instance.counter() - self.waiting
        self.waiting = 0
        self.instance.set_counter(left)
        if left < 0:
            raise errors.instruction_limit(self.limit)

    def used(self) -> int:
        """Instructions that the message has used so far."""
        return self.limit - self.instance.counter() + self.waiting

    def _heap_range(self, what: str, start: int, size: int) -> int:
        """The address of a checked range of the heap."""
        heap = self.instance.heap
        if start + size > heap.size:
            raise errors.outside(what, start, size, heap.size)
        return heap.base + start

    def _load(self, what: str, start: int, size: int) -> bytes:
        return ctypes.string_at(self._heap_range(what, start, size), size)

    def _store(self, what: str, target: int, data: bytes) -> None:
        ctypes.memmove(self._heap_range(what, target, len(data)), data, len(data))

    def _store128(self, call: str, target: int, amount: int) -> None:
        self._store(f"ic0.{call} heap", target, amount.to_bytes(16, "little"))

    def _copy(self, call: str, what: str, data: bytes, target: int, offset: int, size: int) -> None:
        """Copy a part of `data` into the heap: what all `_copy` calls do."""
        self.charge(size)
        if offset + size > len(data):
            raise errors.outside(f"ic0.{call} {what}", offset, size, len(data))
        address = self._heap_range(f"ic0.{call} heap", target, size)
        ctypes.memmove(address, data[offset:] if offset else data, size)

    # -- the message and its sender ------------------------------------------------------------

    def msg_arg_data_size(self) -> int:
        return len(self.arg)

    def msg_arg_data_copy(self, target: int, offset: int, size: int) -> None:
        self._copy("msg_arg_data_copy", "payload", self.arg, target, offset, size)

    def msg_caller_size(self) -> int:
        return len(self.caller)

    def msg_caller_copy(self, target: int, offset: int, size: int) -> None:
        self._copy("msg_caller_copy", "id", self.caller, target, offset, size)

    def msg_caller_info_data_size(self) -> int:
        return 0

    def msg_caller_info_data_copy(self, target: int, offset: int, size: int) -> None:
        self._copy("msg_caller_info_data_copy", "info", b"", target, offset, size)

    def msg_caller_info_signer_size(self) -> int:
        return 0

    def msg_caller_info_signer_copy(self, target: int, offset: int, size: int) -> None:
        self._copy("msg_caller_info_signer_copy", "signer", b"", target, offset, size)

    def msg_method_name_size(self) -> int:
        return len(self.message.method.encode())

    def msg_method_name_copy(self, target: int, offset: int, size: int) -> None:
        name = self.message.method.encode()
        self._copy("msg_method_name_copy", "method name", name, target, offset, size)

    def accept_message(self) -> None:
        if self.outcome.accepted:
            raise errors.violation("ic0.accept_message: the function was already called")
        self.outcome.accepted = True

    def msg_deadline(self) -> int:
        return self.message.deadline

    def msg_reject_code(self) -> int:
        return 0 if self.message.reject is None else self.message.reject.code

    def _reject_text(self) -> bytes:
        return b"" if self.message.reject is None else self.message.reject.message.encode()

    def msg_reject_msg_size(self) -> int:
        return len(self._reject_text())

    def msg_reject_msg_copy(self, target: int, offset: int, size: int) -> None:
        self._copy("msg_reject_msg_copy", "msg", self._reject_text(), target, offset, size)

    # -- the answer ----------------------------------------------------------------------------

    def _unanswered(self, call: str) -> None:
        if self.answered:
            raise errors.violation(f"ic0.{call}: the call is already replied")

    def msg_reply_data_append(self, source: int, size: int) -> None:
        self.charge(BYTE_TRANSMISSION * size)
        self._unanswered("msg_reply_data_append")
        if self.reply_size + size > self.max_reply:
            raise errors.misuse(
                "ic0.msg_reply_data_append: application payload size "
                f"({self.reply_size + size}) cannot be larger than {self.max_reply}."
            )
        self.reply.append(self._load("msg.reply", source, size))
        self.reply_size += size

    def msg_reply(self) -> None:
        self._unanswered("msg_reply")
        self.answered = True
        self.outcome.reply = b"".join(self.reply)

    def msg_reject(self, source: int, size: int) -> None:
        self.charge(BYTE_TRANSMISSION * size)
        self._unanswered("msg_reject")
        if size > self.max_reply:
            raise errors.misuse(
                f"ic0.msg_reject: application payload size ({size}) cannot be larger "
                f"than {self.max_reply}."
            )
        raw = self._load("ic0.msg_reject", source, size)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise errors.violation("ic0.msg_reject: invalid UTF-8 string provided") from None
        self.answered = True
        self.outcome.reject = Reject(4, text, "IC0406")

    # -- cycles --------------------------------------------------------------------------------

    def msg_cycles_available(self) -> int:
        return self._small(self.available)

    def msg_cycles_available128(self, target: int) -> None:
        self._store128("msg_cycles_available128", target, self.available)

    def _refunded(self) -> int:
        callback = self.message.kind in (Kind.REPLY_CALLBACK, Kind.REJECT_CALLBACK)
        return self.message.cycles if callback else 0

    def msg_cycles_refunded(self) -> int:
        return self._small(self._refunded())

    def msg_cycles_refunded128(self, target: int) -> None:
        self._store128("msg_cycles_refunded128", target, self._refunded())

    def _accept(self, most: int) -> int:
        amount = min(most, self.available)
        self.available -= amount
        self.balance += amount
        self.outcome.cycles_accepted += amount
        return amount

    def msg_cycles_accept(self, most: int) -> int:
        return self._accept(most)

    def msg_cycles_accept128(self, high: int, low: int, target: int) -> None:
        self._store128("msg_cycles_accept128", target, self._accept(high << 64 | low))

    def cycles_burn128(self, high: int, low: int, target: int) -> None:
        amount = min(high << 64 | low, self.balance)
        self.balance -= amount
        self.outcome.cycles_burned += amount
        self._store128("cycles_burn128", target, amount)

    def _small(self, amount: int) -> int:
        if amount > _M64:
            raise errors.trapped("cycles amount exceeds 64-bit representation")
        return amount

    def canister_cycle_balance(self) -> int:
        return self._small(self.balance)

    def canister_cycle_balance128(self, target: int) -> None:
        self._store128("canister_cycle_balance128", target, self.balance)

    def canister_liquid_cycle_balance128(self, target: int) -> None:
        self._store128("canister_liquid_cycle_balance128", target, self.balance)

    # -- calls to other canisters --------------------------------------------------------------

    def _drop_call(self) -> None:
        if self.call is not None:
            self.balance += self.call.cycles
            self.call = None

    def _pending(self, name: str) -> _PendingCall:
        if self.call is None:
            raise errors.violation(f"{name} called when no call is under construction.")
        return self.call

    def call_new(
        self,
        callee: int,
        callee_size: int,
        name: int,
        name_size: int,
        reply_function: int,
        reply_env: int,
        reject_function: int,
        reject_env: int,
    ) -> None:
        self.charge(callee_size + name_size)
        self._drop_call()
        if callee_size > MAX_PRINCIPAL:
            raise errors.invalid_principal()
        principal = self._load("ic0.call_new callee_src", callee, callee_size)
        method = self._load("ic0.call_new name_src", name, name_size)
        try:
            text = method.decode()
        except UnicodeDecodeError:
            raise errors.violation("ic0.call_new: the method name is not UTF-8") from None
        self.call = _PendingCall(
            principal,
            text,
            Callback(reply_function, reply_env),
            Callback(reject_function, reject_env),
        )

    def call_on_cleanup(self, function: int, env: int) -> None:
        call = self._pending("ic0.call_on_cleanup")
        if call.on_cleanup is not None:
            raise errors.violation("ic0.call_on_cleanup can be called at most once.")
        call.on_cleanup = Callback(function, env)

    def call_data_append(self, source: int, size: int) -> None:
        self.charge(BYTE_TRANSMISSION * size)
        call = self._pending("ic0.call_data_append")
        if call.size + size > MAX_REPLY:
            raise errors.misuse(
                f"ic0.call_data_append: the size of the argument ({call.size + size}) cannot be "
                f"larger than {MAX_REPLY}."
            )
        call.arg.append(self._load("ic0.call_data_append", source, size))
        call.size += size

    def call_with_best_effort_response(self, timeout_seconds: int) -> None:
        call = self._pending("ic0.call_with_best_effort_response")
        if call.timeout is not None:
            raise errors.violation("ic0.call_with_best_effort_response: a timeout is already set.")
        call.timeout = timeout_seconds

    def call_cycles_add(self, amount: int) -> None:
        self._attach("ic0.call_cycles_add", amount)

    def call_cycles_add128(self, high: int, low: int) -> None:
        self._attach("ic0.call_cycles_add128", high << 64 | low)

    def _attach(self, name: str, amount: int) -> None:
        call = self._pending(name)
        if amount > self.balance:
            raise errors.out_of_cycles(self.environment.canister_id)
        self.balance -= amount
        call.cycles += amount

    def call_perform(self) -> int:
        call = self._pending("ic0.call_perform")
        self.call = None
        self.outcome.calls.append(
            OutgoingCall(
                call.callee,
                call.method,
                b"".join(call.arg),
                call.cycles,
                call.on_reply,
                call.on_reject,
                call.on_cleanup,
                call.timeout,
            )
        )
        return 0

    # -- stable memory -------------------------------------------------------------------------

    def _stable_range(self, offset: int, heap: int, size: int) -> int:
        """Check both sides of a copy and charge for it; gives the heap's address."""
        self.charge(size)
        if size > SLICE_LIMIT:
            raise errors.slice_overrun(SLICE_LIMIT)
        if offset + size > self.stable.size:
            raise errors.trapped("stable memory out of bounds")
        memory = self.instance.heap
        if heap + size > memory.size:
            raise errors.trapped("heap out of bounds")
        return memory.base + heap

    def stable64_size(self) -> int:
        return self.stable.pages

    def stable64_grow(self, additional: int) -> int:
        return self.stable.grow(additional) & _M64

    def stable64_write(self, offset: int, source: int, size: int) -> None:
        if size:
            self.stable.write(offset, self._stable_range(offset, source, size), size)

    def stable64_read(self, target: int, offset: int, size: int) -> None:
        if size:
            self.stable.read(self._stable_range(offset, target, size), offset, size)

    def _must_fit_32(self) -> None:
        if self.stable.pages > _LIMIT_32:
            raise errors.trapped("32 bit stable memory api used on a memory larger than 4GB")

    def stable_size(self) -> int:
        self._must_fit_32()
        return self.stable.pages

    def stable_grow(self, additional: int) -> int:
        self._must_fit_32()
        if self.stable.pages + additional > _LIMIT_32:
            return _M32
        return self.stable.grow(additional) & _M32

    def stable_write(self, offset: int, source: int, size: int) -> None:
        self._must_fit_32()
        self.stable64_write(offset, source, size)

    def stable_read(self, target: int, offset: int, size: int) -> None:
        self._must_fit_32()
        self.stable64_read(target, offset, size)

    # -- the canister and its world ------------------------------------------------------------

    def canister_self_size(self) -> int:
        return len(self.environment.canister_id)

    def canister_self_copy(self, target: int, offset: int, size: int) -> None:
        data = self.environment.canister_id
        self._copy("canister_self_copy", "id", data, target, offset, size)

    def canister_status(self) -> int:
        return self.environment.status

    def canister_version(self) -> int:
        return self.environment.version

    def subnet_self_size(self) -> int:
        return len(self.environment.subnet_id)

    def subnet_self_copy(self, target: int, offset: int, size: int) -> None:
        data = self.environment.subnet_id
        self._copy("subnet_self_copy", "id", data, target, offset, size)

    def root_key_size(self) -> int:
        return len(self.environment.root_key)

    def root_key_copy(self, target: int, offset: int, size: int) -> None:
        self._copy("root_key_copy", "key", self.environment.root_key, target, offset, size)

    def certified_data_set(self, source: int, size: int) -> None:
        self.charge(size)
        if size > 32:
            raise errors.misuse(
                "ic0_certified_data_set failed because the passed data must be no larger than "
                f"32 bytes. Found {size} bytes"
            )
        self.outcome.certified_data = self._load("ic0.certified_data_set", source, size)

    def data_certificate_present(self) -> int:
        return int(self.message.certificate is not None)

    def _certificate(self, call: str) -> bytes:
        if self.message.certificate is None:
            raise errors.misuse(f"ic0.{call}: data certificate is not present")
        return self.message.certificate

    def data_certificate_size(self) -> int:
        return len(self._certificate("data_certificate_size"))

    def data_certificate_copy(self, target: int, offset: int, size: int) -> None:
        data = self._certificate("data_certificate_copy")
        self._copy("data_certificate_copy", "certificate", data, target, offset, size)

    def time(self) -> int:
        return self.environment.time

    def global_timer_set(self, deadline: int) -> int:
        before = self.environment.timer if self.outcome.timer is None else self.outcome.timer
        self.outcome.timer = deadline
        return before

    def performance_counter(self, kind: int) -> int:
        if kind == 0:
            return self.used()
        if kind == 1:
            return self.message.context_instructions + self.used()
        raise errors.misuse(f"Error getting performance counter type {kind}")

    def is_controller(self, source: int, size: int) -> int:
        self.charge(size)
        principal = self._load("ic0.is_controller", source, size)
        if size > MAX_PRINCIPAL:
            raise errors.invalid_principal()
        return int(principal in self.environment.controllers)

    def in_replicated_execution(self) -> int:
        return int(self.mode not in ("NRQ", "CQ", "CRy", "CRt", "CC", "F"))

    # -- what things cost ----------------------------------------------------------------------

    def cost_call(self, name_size: int, payload_size: int, target: int) -> None:
        self._store128("cost_call", target, costs.call(name_size + payload_size))

    def cost_create_canister(self, target: int) -> None:
        self._store128("cost_create_canister", target, costs.CREATE_CANISTER)

    def cost_http_request(self, request_size: int, max_response: int, target: int) -> None:
        amount = costs.http_request(request_size, max_response)
        self._store128("cost_http_request", target, amount)

    def _cost_of_key(self, call: str, source: int, size: int, kinds: int, kind: int) -> int:
        self.charge(size)
        if kind >= kinds:
            return 1
        name = self._load(f"ic0.{call}", source, size)
        return 0 if name in costs.KEYS else 2

    def cost_sign_with_ecdsa(self, source: int, size: int, curve: int, target: int) -> int:
        code = self._cost_of_key("cost_sign_with_ecdsa", source, size, 1, curve)
        if code == 0:
            self._store128("cost_sign_with_ecdsa", target, costs.SIGN)
        return code

    def cost_sign_with_schnorr(self, source: int, size: int, algorithm: int, target: int) -> int:
        code = self._cost_of_key("cost_sign_with_schnorr", source, size, 2, algorithm)
        if code == 0:
            self._store128("cost_sign_with_schnorr", target, costs.SIGN)
        return code

    def cost_vetkd_derive_key(self, source: int, size: int, curve: int, target: int) -> int:
        code = self._cost_of_key("cost_vetkd_derive_key", source, size, 1, curve)
        if code == 0:
            self._store128("cost_vetkd_derive_key", target, costs.SIGN)
        return code

    # -- environment variables -----------------------------------------------------------------

    def env_var_count(self) -> int:
        return len(self.environment.variables)

    def _variable_name(self, index: int) -> bytes:
        variables = self.environment.variables
        if index >= len(variables):
            raise errors.no_variable_index(index, len(variables))
        return variables[index][0].encode()

    def env_var_name_size(self, index: int) -> int:
        return len(self._variable_name(index))

    def env_var_name_copy(self, index: int, target: int, offset: int, size: int) -> None:
        name = self._variable_name(index)
        self._copy("env_var_name_copy", "name", name, target, offset, size)

    def _asked_name(self, call: str, source: int, size: int) -> str:
        raw = self._load(f"ic0.{call}", source, size)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise errors.misuse(f"ic0.{call}: the variable name is not UTF-8") from None

    def env_var_name_exists(self, source: int, size: int) -> int:
        name = self._asked_name("env_var_name_exists", source, size)
        return int(any(name == known for known, _ in self.environment.variables))

    def _variable(self, call: str, source: int, size: int) -> bytes:
        name = self._asked_name(call, source, size)
        for known, value in self.environment.variables:
            if known == name:
                return value.encode()
        raise errors.no_variable(name)

    def env_var_value_size(self, source: int, size: int) -> int:
        return len(self._variable("env_var_value_size", source, size))

    def env_var_value_copy(
        self, source: int, name_size: int, target: int, offset: int, size: int
    ) -> None:
        value = self._variable("env_var_value_copy", source, name_size)
        self._copy("env_var_value_copy", "value", value, target, offset, size)

    # -- words to the outside ------------------------------------------------------------------

    def _charge_log(self, size: int) -> None:
        sent = min(size, self.log_room)
        self.log_room -= sent
        self.charge(2 * min(size, LOG_CAPACITY) + BYTE_TRANSMISSION * sent)

    def log(self, content: bytes) -> None:
        """Add a line to the canister's log."""
        content = content[:LOG_CAPACITY]
        if self.logged + len(content) <= MAX_LOGS:
            self.logged += len(content)
            self.outcome.logs.append((self.environment.time, content))

    def debug_print(self, source: int, size: int) -> None:
        self._charge_log(size)
        if source + size > self.instance.heap.size:
            self.log(b"(debug_print message out of memory bounds)")
        else:
            self.log(self._load("ic0.debug_print", source, min(size, LOG_CAPACITY)))

    def trap(self, source: int, size: int) -> None:
        self.charge(size)
        self._charge_log(size)
        if source + size > self.instance.heap.size:
            raise errors.called_trap("(trap message out of memory bounds)")
        raw = self._load("ic0.trap", source, min(size, MAX_TRAP_TEXT))
        raise errors.called_trap(raw.decode(errors="replace"))


class _PendingCall:
    """A call between `call_new` and `call_perform`."""

    def __init__(self, callee: bytes, method: str, on_reply: Callback, on_reject: Callback) -> None:
        self.callee = callee
        self.method = method
        self.on_reply = on_reply
        self.on_reject = on_reject
        self.on_cleanup: Callback | None = None
        self.arg: list[bytes] = []
        self.size = 0
        self.cycles = 0
        self.timeout: int | None = None

"""System calls about the message itself: argument, sender, answer, cycles, further calls."""

# ruff: noqa: D102 - a method is the system call that it is named after

from __future__ import annotations

from icgpt.replica import errors, fees
from icgpt.replica.messages import Callback, Kind, OutgoingCall, Reject
from icgpt.replica.system_base import MAX_NAME, MAX_REPLY, MessageState, PendingCall
from icgpt.replica.weights import BYTE_TRANSMISSION

MAX_PRINCIPAL = 29
_M64 = (1 << 64) - 1
_NO_CYCLES = 2  # the reject code that `call_perform` gives
_PAYS = ("U", "Ry", "Rt", "T")  # kinds of message whose calls cost cycles


class MessageCalls(MessageState):
    """What a message may ask, answer, take and send."""

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
        amount = min(high << 64 | low, self._liquid())
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
        self._store128("canister_liquid_cycle_balance128", target, self._liquid())

    def _liquid(self) -> int:
        return max(0, self.balance - self.environment.frozen)

    # -- calls to other canisters --------------------------------------------------------------

    def _drop_call(self) -> None:
        if self.call is not None:
            self.balance += self.call.cycles
            self.call = None

    def _pending(self, name: str) -> PendingCall:
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
        if name_size > MAX_NAME:
            raise errors.misuse(f"ic0.call_new: the method name has {name_size} bytes, too many")
        principal = self._load("ic0.call_new callee_src", callee, callee_size)
        method = self._load("ic0.call_new name_src", name, name_size)
        try:
            text = method.decode()
        except UnicodeDecodeError:
            raise errors.violation("ic0.call_new: the method name is not UTF-8") from None
        self.call = PendingCall(
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
        if self.mode in _PAYS:
            cost = fees.call(len(call.method.encode()) + call.size) + fees.RESPONSE_PREPAID
            if self.balance - cost < self.environment.frozen:
                self.balance += call.cycles
                return _NO_CYCLES
            self.balance -= cost
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

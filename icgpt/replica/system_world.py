"""System calls about the canister and its world: stable memory, clock, identity, prices, logs."""

# ruff: noqa: D102 - a method is the system call that it is named after

from __future__ import annotations

from icgpt.candid import CandidError, decode
from icgpt.replica import costs, errors, outcalls
from icgpt.replica.system_base import MAX_NAME, MessageState
from icgpt.replica.weights import LOG_CAPACITY, SLICE_LIMIT

MAX_PRINCIPAL = 29
MAX_TRAP_TEXT = 16 << 10

_LIMIT_32 = 1 << 16  # pages that 32-bit calls can address
_M32 = (1 << 32) - 1
_M64 = (1 << 64) - 1


class WorldCalls(MessageState):
    """What a canister keeps, knows and says."""

    # -- stable memory -------------------------------------------------------------------------

    def _stable_range(self, offset: int, heap: int, size: int, *, write: bool) -> int:
        """Check both sides of a copy and charge for it; gives the heap's address."""
        self.charge(size)
        if size > SLICE_LIMIT:
            raise errors.slice_overrun(SLICE_LIMIT)
        if offset + size > self.stable.size:
            raise errors.trapped("stable memory out of bounds")
        memory = self.instance.heap
        if heap + size > memory.size:
            raise errors.trapped("heap out of bounds")
        self.charge(self.pages.stable(offset, size, write=write))
        return memory.base + heap

    def stable64_size(self) -> int:
        return self.stable.pages

    def stable64_grow(self, additional: int) -> int:
        return self.stable.grow(additional) & _M64

    def stable64_write(self, offset: int, source: int, size: int) -> None:
        if size:
            address = self._stable_range(offset, source, size, write=True)
            self.stable.write(offset, address, size)

    def stable64_read(self, target: int, offset: int, size: int) -> None:
        if size:
            self.stable.read(self._stable_range(offset, target, size, write=False), offset, size)

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

    def subnet_self_node_count(self) -> int:
        return costs.NODES  # whose prices are charged, though there is but one

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
        self.charge(self.pages.heap(self.instance.heap))
        if kind == 0:
            return self.used()
        if kind == 1:
            return self.message.context_instructions + self.used()
        raise errors.misuse(f"Error getting performance counter type {kind}")

    def is_controller(self, source: int, size: int) -> int:
        self.charge(size)
        if size > MAX_PRINCIPAL:
            raise errors.invalid_principal()
        principal = self._load("ic0.is_controller", source, size)
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

    def cost_http_request_v2(self, source: int, size: int, target: int) -> None:
        self.charge(size)
        raw = self._load("ic0.cost_http_request_v2", source, size)
        try:
            (request,) = decode(raw, [outcalls.REQUEST])
        except CandidError as error:
            text = f"ic0.cost_http_request_v2: the parameters can't be decoded: {error}"
            raise errors.misuse(text) from error
        self._store128("cost_http_request_v2", target, outcalls.price(request))

    def _cost_of_key(self, call: str, source: int, size: int, kinds: int, kind: int) -> int:
        self.charge(size)
        if kind >= kinds:
            return 1
        if size > MAX_NAME:
            return 2
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
        if size > MAX_NAME:
            raise errors.misuse(f"ic0.{call}: the variable name has {size} bytes, too many")
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

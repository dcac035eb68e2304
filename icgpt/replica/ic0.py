"""The system interface as a table: each function's types and the kinds of message that may call it.

Kinds, as the interface specification abbreviates them: s start, I init and post_upgrade, G
pre_upgrade, U update, RQ and NRQ replicated and other queries, CQ composite query, Ry and Rt reply
and reject callback (CRy, CRt those of a composite query), C and CC cleanup, T timer and heartbeat,
F inspect_message; * is all but s.
Specification: https://internetcomputer.org/docs/references/ic-interface-spec
"""

from __future__ import annotations

from dataclasses import dataclass

from icgpt.replica.messages import Kind, Message
from icgpt.replica.wasm import I32, I64, FunctionType

_ALL = frozenset(["I", "G", "U", "RQ", "NRQ", "CQ", "Ry", "Rt", "CRy", "CRt", "C", "CC", "F", "T"])
_ANSWERS = "U RQ NRQ CQ Ry Rt CRy CRt"
_CALLS = "U CQ Ry Rt CRy CRt T"
_INFO = "U RQ NRQ CQ Ry Rt CRy CRt C CC F"

_TABLE = f"""
msg_arg_data_size              -> i   : I U RQ NRQ CQ Ry CRy F
msg_arg_data_copy         iii  ->     : I U RQ NRQ CQ Ry CRy F
msg_caller_size                -> i   : *
msg_caller_copy           iii  ->     : *
msg_caller_info_data_size      -> i   : {_INFO}
msg_caller_info_data_copy iii  ->     : {_INFO}
msg_caller_info_signer_size    -> i   : {_INFO}
msg_caller_info_signer_copy iii ->    : {_INFO}
msg_reject_code                -> i   : Ry Rt CRy CRt
msg_reject_msg_size            -> i   : Rt CRt
msg_reject_msg_copy       iii  ->     : Rt CRt
msg_deadline                   -> l   : {_ANSWERS}
msg_reply_data_append     ii   ->     : {_ANSWERS}
msg_reply                      ->     : {_ANSWERS}
msg_reject                ii   ->     : {_ANSWERS}
msg_cycles_available           -> l   : U RQ Rt Ry
msg_cycles_available128   i    ->     : U RQ Rt Ry
msg_cycles_refunded            -> l   : Rt Ry
msg_cycles_refunded128    i    ->     : Rt Ry
msg_cycles_accept         l    -> l   : U RQ Rt Ry
msg_cycles_accept128      lli  ->     : U RQ Rt Ry
cycles_burn128            lli  ->     : I G U RQ Ry Rt C T
canister_self_size             -> i   : *
canister_self_copy        iii  ->     : *
canister_cycle_balance         -> l   : *
canister_cycle_balance128 i    ->     : *
canister_liquid_cycle_balance128 i -> : *
canister_status                -> i   : *
canister_version               -> l   : *
subnet_self_size               -> i   : *
subnet_self_copy          iii  ->     : *
subnet_self_node_count         -> i   : * s
msg_method_name_size           -> i   : F
msg_method_name_copy      iii  ->     : F
accept_message                 ->     : F
call_new                iiiiiiii ->   : {_CALLS}
call_on_cleanup           ii   ->     : {_CALLS}
call_data_append          ii   ->     : {_CALLS}
call_with_best_effort_response i ->   : {_CALLS}
call_cycles_add           l    ->     : U Ry Rt T
call_cycles_add128        ll   ->     : U Ry Rt T
call_perform                   -> i   : {_CALLS}
stable_size                    -> i   : * s
stable_grow               i    -> i   : * s
stable_write              iii  ->     : * s
stable_read               iii  ->     : * s
stable64_size                  -> l   : * s
stable64_grow             l    -> l   : * s
stable64_write            lll  ->     : * s
stable64_read             lll  ->     : * s
root_key_size                  -> i   : I G U RQ Ry Rt C T
root_key_copy             iii  ->     : I G U RQ Ry Rt C T
certified_data_set        ii   ->     : I G U Ry Rt T
data_certificate_present       -> i   : *
data_certificate_size          -> i   : NRQ CQ
data_certificate_copy     iii  ->     : NRQ CQ
time                           -> l   : *
global_timer_set          l    -> l   : I G U Ry Rt C T
performance_counter       i    -> l   : * s
is_controller             ii   -> i   : * s
in_replicated_execution        -> i   : * s
cost_call                 lli  ->     : * s
cost_create_canister      i    ->     : * s
cost_http_request         lli  ->     : * s
cost_http_request_v2      iii  ->     : * s
cost_sign_with_ecdsa      iiii -> i   : * s
cost_sign_with_schnorr    iiii -> i   : * s
cost_vetkd_derive_key     iiii -> i   : * s
env_var_count                  -> i   : *
env_var_name_size         i    -> i   : *
env_var_name_copy         iiii ->     : *
env_var_name_exists       ii   -> i   : *
env_var_value_size        ii   -> i   : *
env_var_value_copy        iiiii ->    : *
debug_print               ii   ->     : * s
trap                      ii   ->     : * s
"""

_TYPES = {"i": I32, "l": I64}


@dataclass(frozen=True)
class Signature:
    """A system call: its Wasm type and the kinds of message that may make it."""

    name: str
    type: FunctionType
    modes: frozenset[str]


def _read(line: str) -> Signature:
    declaration, modes = line.split(":")
    left, result = declaration.split("->")
    name, _, params = left.strip().partition(" ")
    allowed: set[str] = set()
    for mode in modes.split():
        allowed |= _ALL if mode == "*" else {mode}
    kind = FunctionType(
        tuple(_TYPES[letter] for letter in params.strip()),
        tuple(_TYPES[letter] for letter in result.strip()),
    )
    return Signature(name, kind, frozenset(allowed))


SIGNATURES = {s.name: s for s in (_read(line) for line in _TABLE.strip().splitlines())}

# Each kind of message: its letters above, and how the platform's errors call it.
_MODES = {
    Kind.START: ("s", "start"),
    Kind.INIT: ("I", "init"),
    Kind.POST_UPGRADE: ("I", "init"),
    Kind.PRE_UPGRADE: ("G", "pre upgrade"),
    Kind.INSPECT: ("F", "inspect message"),
    Kind.UPDATE: ("U", "update"),
    Kind.COMPOSITE_QUERY: ("CQ", "composite query"),
    Kind.CLEANUP: ("C", "cleanup"),
    Kind.TIMER: ("T", "system task"),
    Kind.HEARTBEAT: ("T", "system task"),
    Kind.LOW_WASM_MEMORY: ("T", "system task"),
}
_BY_REPLICATION = {
    (Kind.QUERY, True): ("RQ", "replicated query"),
    (Kind.QUERY, False): ("NRQ", "non replicated query"),
    (Kind.REPLY_CALLBACK, True): ("Ry", "reply callback"),
    (Kind.REPLY_CALLBACK, False): ("CRy", "composite reply callback"),
    (Kind.REJECT_CALLBACK, True): ("Rt", "reject callback"),
    (Kind.REJECT_CALLBACK, False): ("CRt", "composite reject callback"),
    (Kind.CLEANUP, False): ("CC", "composite cleanup"),
}


def mode(message: Message) -> tuple[str, str]:
    """The letters of a message's kind, and its name in error texts."""
    special = _BY_REPLICATION.get((message.kind, message.replicated))
    return special if special is not None else _MODES[message.kind]

"""The cycles ledger: users' cycles, and canisters made from them.

See https://github.com/dfinity/cycles-ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from icgpt.candid import BLOB, NAT, NAT64, NULL, PRINCIPAL, TEXT, Opt, Record, Type, Variant
from icgpt.principal import from_text
from icgpt.replica import management_types as types
from icgpt.replica.native.base import Call, Method, Native
from icgpt.replica.native.icrc1 import ACCOUNT, Icrc1, result
from icgpt.replica.native.tokens import Ledger, Refused, Token, account_of
from icgpt.replica.records import Block
from icgpt.replica.rejects import RejectError

ID = from_text("um5iw-rqaaa-aaaaq-qaaba-cai")
TRILLION = 10**12
TOKEN = Token("Trillion Cycles", "TCYCLES", 12, 100_000_000, (1 << 127) - 1, 1_000 * TRILLION)
NOWHERE = bytes(32)  # where cycles go that leave the ledger

SELECTION = Variant(
    {"Filter": Record({"subnet_type": Opt(TEXT)}), "Subnet": Record({"subnet": PRINCIPAL})}
)
_CREATION = Record({"subnet_selection": Opt(SELECTION), "settings": Opt(types.SETTINGS)})
_CREATE = Record(
    {
        "from_subaccount": Opt(BLOB),
        "created_at_time": Opt(NAT64),
        "amount": NAT,
        "creation_args": Opt(_CREATION),
    }
)
_ERRORS: dict[str, Type] = {
    "GenericError": Record({"message": TEXT, "error_code": NAT}),
    "TemporarilyUnavailable": NULL,
    "CreatedInFuture": Record({"ledger_time": NAT64}),
    "TooOld": NULL,
    "InsufficientFunds": Record({"balance": NAT}),
}
_CREATE_ERRORS: dict[str, Type] = _ERRORS | {
    "Duplicate": Record({"duplicate_of": NAT, "canister_id": Opt(PRINCIPAL)}),
    "FailedToCreate": Record({"error": TEXT, "refund_block": Opt(NAT), "fee_block": Opt(NAT)}),
}
_CREATED = Record({"block_id": NAT, "canister_id": PRINCIPAL})
_WITHDRAW = Record(
    {
        "amount": NAT,
        "from_subaccount": Opt(BLOB),
        "to": PRINCIPAL,
        "created_at_time": Opt(NAT64),
    }
)
_CODES = (
    *("NoError", "CanisterError", "SysTransient", "DestinationInvalid"),
    *("Unknown", "SysFatal", "CanisterReject"),
)
_WITHDRAW_ERRORS: dict[str, Type] = _ERRORS | {
    "Duplicate": Record({"duplicate_of": NAT}),
    "BadFee": Record({"expected_fee": NAT}),
    "InvalidReceiver": Record({"receiver": PRINCIPAL}),
    "FailedToWithdraw": Record(
        {
            "fee_block": Opt(NAT),
            "rejection_code": Variant(dict.fromkeys(_CODES, NULL)),
            "rejection_reason": TEXT,
        }
    ),
}
_DEPOSIT = Record({"to": ACCOUNT, "memo": Opt(BLOB)})
_DEPOSITED = Record({"block_index": NAT, "balance": NAT})

# Makes a canister for its first controller from settings and cycles; raises RejectError.
Create = Callable[[bytes, dict[str, Any] | None, int], bytes]
# Adds cycles to a canister; raises RejectError where there is none.
TopUp = Callable[[bytes, int], None]


class CyclesLedger:
    """The methods that go beyond the token standards."""

    def __init__(self, ledger: Ledger, subnet: bytes, create: Create, top_up: TopUp) -> None:
        self.ledger = ledger
        self._subnet = subnet
        self._create = create
        self._top_up = top_up

    def canister(self) -> Native:
        """Return the canister."""
        methods = {
            **Icrc1(self.ledger).methods(),
            "create_canister": Method((_CREATE,), (result(_CREATE_ERRORS, _CREATED),), self.create),
            "withdraw": Method((_WITHDRAW,), (result(_WITHDRAW_ERRORS),), self.withdraw),
            "deposit": Method((_DEPOSIT,), (_DEPOSITED,), self.deposit),
        }
        return Native(ID, "cycles ledger", methods)

    def _spend(self, call: Call, wanted: dict[str, Any]) -> tuple[bytes, int]:
        """Burn the amount that is to leave the ledger; return the account and the block."""
        self.ledger.greet(call.caller)
        source = account_of({"owner": call.caller, "subaccount": wanted["from_subaccount"]})
        created = wanted["created_at_time"]
        self.ledger.check(call, None, created)
        block = self.ledger.move(Block(source, NOWHERE, wanted["amount"], b"", created or 0))
        self.ledger.take(NOWHERE, wanted["amount"])
        return source, block

    def _refund(self, source: bytes, amount: int) -> int | None:
        """Give back what could not be spent, less one more fee, as the ledger does."""
        kept = max(0, amount - self.ledger.token.fee)
        if not kept:
            return None
        self.ledger.give(source, kept)
        return self.ledger.record(Block(NOWHERE, source, kept))

    def create(self, call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
        """Make a canister from cycles of the caller's account."""
        creation = wanted["creation_args"] or {"subnet_selection": None, "settings": None}
        try:
            source, block = self._spend(call, wanted)
        except Refused as refused:
            ((name, value),) = refused.variant.items()
            return {"Err": {name: value | {"canister_id": None} if name == "Duplicate" else value}}
        try:
            chosen = creation["subnet_selection"] or {}
            if "Subnet" in chosen and chosen["Subnet"]["subnet"] != self._subnet:
                raise Refused("NoSuchSubnet")
            canister = self._create(call.caller, creation["settings"], wanted["amount"])
        except (RejectError, Refused) as error:
            refund = self._refund(source, wanted["amount"])
            failure = {"error": str(error), "refund_block": refund, "fee_block": block}
            return {"Err": {"FailedToCreate": failure}}
        return {"Ok": {"block_id": block, "canister_id": canister}}

    def withdraw(self, call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
        """Send cycles of the caller's account to a canister."""
        if wanted["to"][-1:] != b"\x01":
            return {"Err": {"InvalidReceiver": {"receiver": wanted["to"]}}}
        try:
            source, block = self._spend(call, wanted)
        except Refused as refused:
            return {"Err": refused.variant}
        try:
            self._top_up(wanted["to"], wanted["amount"])
        except RejectError as error:
            self._refund(source, wanted["amount"])
            failure = {
                "fee_block": block,
                "rejection_code": {"DestinationInvalid": None},
                "rejection_reason": error.reject.message,
            }
            return {"Err": {"FailedToWithdraw": failure}}
        return {"Ok": block}

    def deposit(self, call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
        """Take in the cycles that a canister sent along."""
        account = account_of(wanted["to"])
        self.ledger.greet(wanted["to"]["owner"])
        self.ledger.give(account, max(0, call.cycles - self.ledger.token.fee))
        block = self.ledger.record(Block(NOWHERE, account, call.cycles, wanted["memo"] or b""))
        call.cycles = 0
        return {"block_index": block, "balance": self.ledger.balance(account)}

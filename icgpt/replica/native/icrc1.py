"""The methods of the ICRC-1 and ICRC-2 token standards, for any of the ledgers.

See https://github.com/dfinity/ICRC-1/tree/main/standards.
"""

from __future__ import annotations

from typing import Any

from icgpt.candid import (
    BLOB,
    INT,
    NAT,
    NAT8,
    NAT64,
    NULL,
    PRINCIPAL,
    TEXT,
    Opt,
    Record,
    Type,
    Variant,
    Vec,
)
from icgpt.replica.native.base import Call, Method
from icgpt.replica.native.tokens import Ledger, Refused, account_id, account_of
from icgpt.replica.records import Allowance, Block

ACCOUNT = Record({"owner": PRINCIPAL, "subaccount": Opt(BLOB)})
_ERRORS: dict[str, Type] = {
    "GenericError": Record({"message": TEXT, "error_code": NAT}),
    "TemporarilyUnavailable": NULL,
    "Duplicate": Record({"duplicate_of": NAT}),
    "BadFee": Record({"expected_fee": NAT}),
    "CreatedInFuture": Record({"ledger_time": NAT64}),
    "TooOld": NULL,
    "InsufficientFunds": Record({"balance": NAT}),
}
_TRANSFER_ERRORS: dict[str, Type] = _ERRORS | {"BadBurn": Record({"min_burn_amount": NAT})}
_INSUFFICIENT: dict[str, Type] = {"InsufficientAllowance": Record({"allowance": NAT})}
_APPROVE_ERRORS: dict[str, Type] = _ERRORS | {
    "AllowanceChanged": Record({"current_allowance": NAT}),
    "Expired": Record({"ledger_time": NAT64}),
}
_COMMON: dict[str, Type] = {
    "fee": Opt(NAT),
    "memo": Opt(BLOB),
    "created_at_time": Opt(NAT64),
    "amount": NAT,
}
TRANSFER = Record({"from_subaccount": Opt(BLOB), "to": ACCOUNT} | _COMMON)
TRANSFER_FROM = Record({"spender_subaccount": Opt(BLOB), "from": ACCOUNT, "to": ACCOUNT} | _COMMON)
APPROVE = Record(
    {
        "from_subaccount": Opt(BLOB),
        "spender": ACCOUNT,
        "expected_allowance": Opt(NAT),
        "expires_at": Opt(NAT64),
    }
    | _COMMON
)
ALLOWANCE = Record({"allowance": NAT, "expires_at": Opt(NAT64)})
_METADATA = Variant({"Nat": NAT, "Int": INT, "Text": TEXT, "Blob": BLOB})
_STANDARDS = ("ICRC-1", "ICRC-2")


def result(errors: dict[str, Type], good: Type = NAT) -> Variant:
    """Return the type of a result with some of a ledger's errors."""
    return Variant({"Ok": good, "Err": Variant(errors)})


class Icrc1:
    """The standards' methods of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def methods(self) -> dict[str, Method]:
        """Return the table."""
        token = self._ledger.token
        metadata = [
            {0: "icrc1:decimals", 1: {"Nat": token.decimals}},
            {0: "icrc1:name", 1: {"Text": token.name}},
            {0: "icrc1:symbol", 1: {"Text": token.symbol}},
            {0: "icrc1:fee", 1: {"Nat": token.fee}},
        ]
        url = "https://github.com/dfinity/ICRC-1/tree/main/standards"
        standards = [{"name": name, "url": f"{url}/{name}"} for name in _STANDARDS]
        standard = Record({"name": TEXT, "url": TEXT})
        asked = Record({"account": ACCOUNT, "spender": ACCOUNT})

        def constant(kind: Type, value: Any) -> Method:
            return Method((), (kind,), lambda _call: value, query=True)

        return {
            "icrc1_name": constant(TEXT, token.name),
            "icrc1_symbol": constant(TEXT, token.symbol),
            "icrc1_decimals": constant(NAT8, token.decimals),
            "icrc1_fee": constant(NAT, token.fee),
            "icrc1_metadata": constant(Vec(Record({0: TEXT, 1: _METADATA})), metadata),
            "icrc1_supported_standards": constant(Vec(standard), standards),
            "icrc1_minting_account": constant(Opt(ACCOUNT), None),
            "icrc1_total_supply": Method((), (NAT,), self._supply, query=True),
            "icrc1_balance_of": Method((ACCOUNT,), (NAT,), self._balance, query=True),
            "icrc1_transfer": Method((TRANSFER,), (result(_TRANSFER_ERRORS),), self._transfer),
            "icrc2_approve": Method((APPROVE,), (result(_APPROVE_ERRORS),), self._approve),
            "icrc2_allowance": Method((asked,), (ALLOWANCE,), self._allowance, query=True),
            "icrc2_transfer_from": Method(
                (TRANSFER_FROM,), (result(_TRANSFER_ERRORS | _INSUFFICIENT),), self._transfer_from
            ),
        }

    def _supply(self, _call: Call) -> int:
        return sum(list(self._ledger.state.balances.values()))

    def _balance(self, _call: Call, account: dict[str, Any]) -> int:
        try:
            return self._ledger.balance(account_of(account), account["owner"])
        except Refused:
            return 0  # of an account that can't be

    def _transfer(self, call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
        try:
            self._ledger.greet(call.caller)
            source = account_of({"owner": call.caller, "subaccount": wanted["from_subaccount"]})
            return {"Ok": self._move(call, source, wanted)}
        except Refused as refused:
            return {"Err": refused.variant}

    def _move(self, call: Call, source: bytes, wanted: dict[str, Any]) -> int:
        ledger, created = self._ledger, wanted["created_at_time"]
        ledger.check(call, wanted["fee"], created)
        target = account_of(wanted["to"])
        ledger.greet(wanted["to"]["owner"])
        memo = wanted["memo"] or b""
        return ledger.move(Block(source, target, wanted["amount"], memo, created or 0))

    # --- approvals

    def _approve(self, call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
        ledger = self._ledger
        try:
            ledger.greet(call.caller)
            source = account_of({"owner": call.caller, "subaccount": wanted["from_subaccount"]})
            key = source + account_of(wanted["spender"])
            ledger.check(call, wanted["fee"], wanted["created_at_time"])
            expires = wanted["expires_at"] or 0
            if expires and expires <= call.now:
                raise Refused("Expired", {"ledger_time": call.now})
            current, expected = self._allowed(call, key), wanted["expected_allowance"]
            if expected is not None and expected != current:
                raise Refused("AllowanceChanged", {"current_allowance": current})
            ledger.take(source, ledger.token.fee)
            ledger.state.allowances[key] = Allowance(wanted["amount"], expires)
            memo = wanted["memo"] or b""
            return {"Ok": ledger.record(Block(source, source, 0, memo))}
        except Refused as refused:
            return {"Err": refused.variant}

    def _allowed(self, call: Call, key: bytes) -> int:
        allowance = self._ledger.state.allowances.get(key)
        if allowance is None or (allowance.expires and allowance.expires <= call.now):
            return 0
        return allowance.amount

    def _allowance(self, call: Call, asked: dict[str, Any]) -> dict[str, Any]:
        try:
            key = account_of(asked["account"]) + account_of(asked["spender"])
        except Refused:
            return {"allowance": 0, "expires_at": None}
        allowed = self._allowed(call, key)
        known = self._ledger.state.allowances.get(key)
        return {"allowance": allowed, "expires_at": known.expires or None if known else None}

    def _transfer_from(self, call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
        ledger = self._ledger
        try:
            owner = wanted["from"]["owner"]
            ledger.greet(owner)
            source = account_of(wanted["from"])
            key = source + account_id(call.caller, wanted["spender_subaccount"])
            allowed, needed = self._allowed(call, key), wanted["amount"] + ledger.token.fee
            if owner != call.caller and allowed < needed:
                raise Refused("InsufficientAllowance", {"allowance": allowed})
            block = self._move(call, source, wanted)
            if owner != call.caller:
                known = ledger.state.allowances[key]
                ledger.state.allowances[key] = Allowance(allowed - needed, known.expires)
            return {"Ok": block}
        except Refused as refused:
            return {"Err": refused.variant}

"""The ICP ledger: the older `transfer` with account identifiers beside the token standards.

See https://internetcomputer.org/docs/references/ledger.
"""

from __future__ import annotations

from typing import Any

from icgpt.candid import (
    BLOB,
    NAT32,
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
from icgpt.principal import from_text
from icgpt.replica.native.base import Call, Method, Native
from icgpt.replica.native.icrc1 import ACCOUNT, Icrc1
from icgpt.replica.native.tokens import Ledger, Refused, Token, account_id, account_of
from icgpt.replica.records import Block

ID = from_text("ryjl3-tyaaa-aaaaa-aaaba-cai")
E8S = 10**8
TOKEN = Token("Internet Computer", "ICP", 8, 10_000, 1_000_000_000 * E8S, 1_000_000 * E8S)

_ARCHIVES = Vec(Record({"canister_id": PRINCIPAL}))
_TOKENS = Record({"e8s": NAT64})
_STAMP = Record({"timestamp_nanos": NAT64})
_TRANSFER = Record(
    {
        "memo": NAT64,
        "amount": _TOKENS,
        "fee": _TOKENS,
        "from_subaccount": Opt(BLOB),
        "to": BLOB,
        "created_at_time": Opt(_STAMP),
    }
)
_ERRORS: dict[str, Type] = {
    "BadFee": Record({"expected_fee": _TOKENS}),
    "InsufficientFunds": Record({"balance": _TOKENS}),
    "TxTooOld": Record({"allowed_window_nanos": NAT64}),
    "TxCreatedInFuture": NULL,
    "TxDuplicate": Record({"duplicate_of": NAT64}),
}
_RESULT = Variant({"Ok": NAT64, "Err": Variant(_ERRORS)})


def icp_ledger(ledger: Ledger) -> Native:
    """Return the canister."""

    def transfer(call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
        stamp = wanted["created_at_time"]
        created = stamp["timestamp_nanos"] if stamp is not None else None
        try:
            ledger.greet(call.caller)
            ledger.check(call, wanted["fee"]["e8s"], created)
            subaccount = wanted["from_subaccount"]
            source = account_of({"owner": call.caller, "subaccount": subaccount})
            memo = wanted["memo"].to_bytes(8, "big")
            block = Block(source, wanted["to"], wanted["amount"]["e8s"], memo, created or 0)
            return {"Ok": ledger.move(block)}
        except Refused as refused:
            return {"Err": _older(refused)}

    def balance(_call: Call, asked: dict[str, Any]) -> dict[str, Any]:
        return {"e8s": ledger.balance(asked["account"])}

    def identifier(_call: Call, account: dict[str, Any]) -> bytes:
        return account_id(account["owner"], account["subaccount"])

    fee = Record({"transfer_fee": _TOKENS})
    methods = {
        **Icrc1(ledger).methods(),
        "transfer": Method((_TRANSFER,), (_RESULT,), transfer),
        "account_balance": Method((Record({"account": BLOB}),), (_TOKENS,), balance, query=True),
        "account_identifier": Method((ACCOUNT,), (BLOB,), identifier, query=True),
        "transfer_fee": Method(
            (Record({}),),
            (fee,),
            lambda _call, _nothing: {"transfer_fee": {"e8s": TOKEN.fee}},
            query=True,
        ),
        "symbol": Method(
            (), (Record({"symbol": TEXT}),), lambda _call: {"symbol": TOKEN.symbol}, query=True
        ),
        "name": Method(
            (), (Record({"name": TEXT}),), lambda _call: {"name": TOKEN.name}, query=True
        ),
        "decimals": Method(
            (), (Record({"decimals": NAT32}),), lambda _call: {"decimals": 8}, query=True
        ),
        "archives": Method(
            (),
            (Record({"archives": _ARCHIVES}),),
            lambda _call: {"archives": []},
            query=True,
        ),
    }
    return Native(ID, "ICP ledger", methods)


def _older(refused: Refused) -> dict[str, Any]:
    """Return an error in the older interface's words."""
    ((name, value),) = refused.variant.items()
    match name:
        case "BadFee":
            return {name: {"expected_fee": {"e8s": value["expected_fee"]}}}
        case "InsufficientFunds":
            return {name: {"balance": {"e8s": value["balance"]}}}
        case "TooOld":
            return {"TxTooOld": {"allowed_window_nanos": 24 * 3600 * 10**9}}
        case "CreatedInFuture":
            return {"TxCreatedInFuture": None}
        case "Duplicate":
            return {"TxDuplicate": value}
    return {"InsufficientFunds": {"balance": {"e8s": 0}}}

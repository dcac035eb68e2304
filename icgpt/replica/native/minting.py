"""The cycles-minting canister: turns ICP that was sent to it into cycles or canisters.

A sender transfers ICP to the subaccount that stands for a principal, with a memo that says what
for, and then tells this canister the block. Each block counts once. The exchange rate is fixed.
See https://internetcomputer.org/docs/references/system-canisters.
"""

from __future__ import annotations

from typing import Any

from icgpt.candid import BLOB, NAT, NAT64, NULL, PRINCIPAL, TEXT, Opt, Record, Type, Variant, Vec
from icgpt.principal import from_text
from icgpt.replica import management_types as types
from icgpt.replica.native.base import Call, Method, Native
from icgpt.replica.native.cycles_ledger import SELECTION, Create, TopUp
from icgpt.replica.native.tokens import Ledger, account_id, principal_subaccount
from icgpt.replica.rejects import RejectError

ID = from_text("rkp4c-7iaaa-aaaaa-aaaca-cai")
# Ten-thousandths of an XDR, that is, of a trillion cycles, for one ICP.
RATE = 30_000
MINT, CREATE, TOP_UP = (
    int.from_bytes(name, "little").to_bytes(8, "big") for name in (b"MINT", b"CREA", b"TPUP")
)

_NOTIFY_ERROR: dict[str, Type] = {
    "Refunded": Record({"reason": TEXT, "block_index": Opt(NAT64)}),
    "Processing": NULL,
    "TransactionTooOld": NAT64,
    "InvalidTransaction": TEXT,
    "Other": Record({"error_code": NAT64, "error_message": TEXT}),
}
_NOTIFY_CREATE = Record(
    {
        "block_index": NAT64,
        "controller": PRINCIPAL,
        "subnet_type": Opt(TEXT),
        "subnet_selection": Opt(SELECTION),
        "settings": Opt(types.SETTINGS),
    }
)
_NOTIFY_TOP_UP = Record({"block_index": NAT64, "canister_id": PRINCIPAL})
_NOTIFY_MINT = Record({"block_index": NAT64, "to_subaccount": Opt(BLOB), "deposit_memo": Opt(BLOB)})
_MINTED = Record({"block_index": NAT, "minted": NAT, "balance": NAT})
_RATE = Record(
    {
        "data": Record({"timestamp_seconds": NAT64, "xdr_permyriad_per_icp": NAT64}),
        "hash_tree": BLOB,
        "certificate": BLOB,
    }
)
_TYPES = Record({"data": Vec(Record({0: TEXT, 1: Vec(PRINCIPAL)}))})


class _InvalidError(Exception):
    """A block that does not pay for what is asked."""


class Minting:
    """The methods; `notified` in the ICP ledger's state says which blocks have counted."""

    def __init__(
        self, icp: Ledger, cycles: Ledger, subnet: bytes, create: Create, top_up: TopUp
    ) -> None:
        self._icp = icp
        self._cycles = cycles
        self._subnet = subnet
        self._create = create
        self._top_up = top_up

    def canister(self) -> Native:
        """Return the canister."""

        def result(good: Type) -> Variant:
            return Variant({"Ok": good, "Err": Variant(_NOTIFY_ERROR)})

        methods = {
            "get_default_subnets": Method(
                (), (Vec(PRINCIPAL),), lambda _call: [self._subnet], query=True
            ),
            "get_subnet_types_to_subnets": Method(
                (), (_TYPES,), lambda _call: {"data": []}, query=True
            ),
            "get_icp_xdr_conversion_rate": Method((), (_RATE,), self.rate, query=True),
            "notify_create_canister": Method((_NOTIFY_CREATE,), (result(PRINCIPAL),), self.create),
            "notify_top_up": Method((_NOTIFY_TOP_UP,), (result(NAT),), self.top_up),
            "notify_mint_cycles": Method((_NOTIFY_MINT,), (result(_MINTED),), self.mint),
        }
        return Native(ID, "cycles minting", methods)

    def rate(self, call: Call) -> dict[str, Any]:
        """Tell what an ICP is worth."""
        data = {"timestamp_seconds": call.now // 10**9, "xdr_permyriad_per_icp": RATE}
        return {"data": data, "hash_tree": b"", "certificate": b""}

    def _paid(self, index: int, payer: bytes, memo: bytes) -> int:
        """Return the cycles that a block pays for."""
        block = self._icp.block(index)
        target = account_id(ID, principal_subaccount(payer))
        if block is None or block.target != target:
            raise _InvalidError(f"Block {index} is no transfer to the account of this request.")
        if block.memo != memo:
            raise _InvalidError(f"Intent in the block's memo is not supported: {block.memo.hex()}")
        if index in self._icp.state.notified:
            raise _InvalidError(f"Block {index} was used already.")
        return block.amount * RATE

    def _used(self, index: int) -> None:
        block = self._icp.block(index)
        if block is not None:
            self._icp.state.notified.append(index)
            self._icp.take(block.target, block.amount)

    def create(self, call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
        """Make a canister."""
        index, controller = wanted["block_index"], wanted["controller"]
        try:
            cycles = self._paid(index, controller, CREATE)
            canister = self._create(controller, wanted["settings"], cycles)
        except (_InvalidError, RejectError) as error:
            return {"Err": {"InvalidTransaction": str(error)}}
        self._used(index)
        return {"Ok": canister}

    def top_up(self, call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
        """Add cycles to a canister."""
        index, canister = wanted["block_index"], wanted["canister_id"]
        try:
            cycles = self._paid(index, canister, TOP_UP)
            self._top_up(canister, cycles)
        except (_InvalidError, RejectError) as error:
            return {"Err": {"InvalidTransaction": str(error)}}
        self._used(index)
        return {"Ok": cycles}

    def mint(self, call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
        """Add cycles to the caller's account in the cycles ledger."""
        index, ledger = wanted["block_index"], self._cycles
        try:
            minted = self._paid(index, call.caller, MINT)
        except _InvalidError as error:
            return {"Err": {"InvalidTransaction": str(error)}}
        self._used(index)
        account = account_id(call.caller, wanted["to_subaccount"])
        ledger.greet(call.caller)
        ledger.give(account, max(0, minted - ledger.token.fee))
        return {
            "Ok": {
                "block_index": index,
                "minted": minted,
                "balance": ledger.balance(account),
            }
        }

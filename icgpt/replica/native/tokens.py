"""Balances of a token and the moves between them: what both ledgers have in common.

Accounts are known by the ICP ledger's identifier, a hash of owner and subaccount. The anonymous
principal, whose key is everybody's, holds what there is to give away; `welcome` is what every
other user's main account holds from the start, so that a developer need not be given tokens first.
See https://github.com/dfinity/ICRC-1/blob/main/standards/ICRC-1/README.md.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Any

from icgpt.principal import ANONYMOUS
from icgpt.replica.native.base import Call
from icgpt.replica.records import Block, LedgerState

WINDOW = 24 * 3600 * 10**9
DRIFT = 60 * 10**9
KEPT_BLOCKS = 500
NO_SUBACCOUNT = bytes(32)


class Refused(Exception):  # noqa: N818 - a ledger's answer, one of its interface's variants
    """A move that is not made, as the `Err` of the ledger's interface."""

    def __init__(self, error: str, value: Any = None) -> None:
        super().__init__(error)
        self.variant = {error: value}


def account_id(owner: bytes, subaccount: bytes | None = None) -> bytes:
    """Return the 32 bytes by which an account goes."""
    digest = hashlib.sha224(b"\x0aaccount-id" + owner + (subaccount or NO_SUBACCOUNT)).digest()
    return zlib.crc32(digest).to_bytes(4, "big") + digest


def principal_subaccount(owner: bytes) -> bytes:
    """Return the subaccount that stands for a principal, as the minting canister uses them."""
    return (bytes([len(owner)]) + owner).ljust(32, b"\0")


def account_of(account: dict[str, Any]) -> bytes:
    """Return the identifier of an ICRC-1 account; the same whether the subaccount is left out."""
    subaccount = account["subaccount"]
    if subaccount is not None and len(subaccount) != 32:
        raise Refused("GenericError", {"message": "a subaccount has 32 bytes", "error_code": 1})
    return account_id(account["owner"], subaccount)


@dataclass(frozen=True)
class Token:
    """What a token is called and what moving it costs."""

    name: str
    symbol: str
    decimals: int
    fee: int
    supply: int  # what the anonymous principal holds at first
    welcome: int  # what each other user holds at first


class Ledger:
    """A token's balances; the state outlives this object."""

    def __init__(self, token: Token, state: LedgerState, *, welcome: bool) -> None:
        self.token = token
        self.state = state
        self._welcome = token.welcome if welcome else 0
        if not state.balances:
            state.balances[account_id(ANONYMOUS)] = token.supply

    def greet(self, owner: bytes) -> None:
        """Open a user's main account, with what every user holds at first."""
        # Self-authenticating principals are users; canisters' end in 1.
        if self._welcome and owner[-1:] == b"\x02":
            self.state.balances.setdefault(account_id(owner), self._welcome)

    def balance(self, account: bytes, owner: bytes = b"") -> int:
        """Return what an account holds; `owner`, where known, says whether it is a user's."""
        known = self.state.balances.get(account)
        if known is None and owner[-1:] == b"\x02" and account == account_id(owner):
            return self._welcome
        return known or 0

    def take(self, account: bytes, amount: int) -> None:
        """Take tokens out of an account, the fee not counted; raises Refused."""
        balance = self.balance(account)
        if amount > balance:
            raise Refused("InsufficientFunds", {"balance": balance})
        self.state.balances[account] = balance - amount

    def give(self, account: bytes, amount: int) -> None:
        """Add tokens to an account."""
        self.state.balances[account] = self.balance(account) + amount

    def check(self, call: Call, fee: int | None, created: int | None) -> None:
        """Refuse what has a wrong fee, or a time too long ago or yet to come."""
        if fee is not None and fee != self.token.fee:
            raise Refused("BadFee", {"expected_fee": self.token.fee})
        if created is not None and created + WINDOW + DRIFT < call.now:
            raise Refused("TooOld")
        if created is not None and created > call.now + DRIFT:
            raise Refused("CreatedInFuture", {"ledger_time": call.now})

    def move(self, block: Block) -> int:
        """Move tokens for the fee; return the block's number. Raises Refused."""
        if block.created:
            for index, known in enumerate(self.state.blocks):
                if known == block:
                    raise Refused("Duplicate", {"duplicate_of": self.state.first_block + index})
        self.take(block.source, block.amount + self.token.fee)
        self.give(block.target, block.amount)
        return self.record(block)

    def record(self, block: Block) -> int:
        """Keep a block; return its number."""
        blocks = self.state.blocks
        blocks.append(block)
        if len(blocks) > KEPT_BLOCKS:
            gone = len(blocks) - KEPT_BLOCKS
            self.state.first_block += gone
            del blocks[:gone]
        return self.state.first_block + len(blocks) - 1

    def block(self, index: int) -> Block | None:
        """Return one of the last blocks."""
        at = index - self.state.first_block
        return self.state.blocks[at] if 0 <= at < len(self.state.blocks) else None

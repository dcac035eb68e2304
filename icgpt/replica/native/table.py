"""Which system canisters there are, and the way of calls and queries to them."""

from __future__ import annotations

import hashlib
from typing import Any

from icgpt.replica import fees, rejects
from icgpt.replica.management import MAX_CYCLES, Management
from icgpt.replica.native import cycles_ledger, icp_ledger
from icgpt.replica.native.base import Call, Native
from icgpt.replica.native.cycles_ledger import CyclesLedger
from icgpt.replica.native.minting import Minting
from icgpt.replica.native.tokens import Ledger
from icgpt.replica.records import Task
from icgpt.replica.rejects import RejectError
from icgpt.replica.routing import Router, View


class Natives:
    """The system canisters of a network; `welcome` lets every user start with tokens."""

    def __init__(self, router: Router, management: Management, *, welcome: bool) -> None:
        self._router = router
        self._management = management
        state = router.ledgers
        icp = Ledger(icp_ledger.TOKEN, state.icp, welcome=welcome)
        cycles = Ledger(cycles_ledger.TOKEN, state.cycles, welcome=welcome)
        subnet, create, top_up = router.subnet_id, self._create, self._top_up
        natives = (
            icp_ledger.icp_ledger(icp),
            CyclesLedger(cycles, subnet, create, top_up).canister(),
            Minting(icp, cycles, subnet, create, top_up).canister(),
        )
        self._natives: dict[bytes, Native] = {native.id: native for native in natives}
        for native in natives:
            text = native.interface.encode()
            # Without a module to hash, the interface stands for it.
            view = View((), hashlib.sha256(text).digest(), {"candid:service": text}, {}, b"", False)
            router.views[native.id] = view

    @property
    def names(self) -> dict[bytes, str]:
        """What they are called, by their ids."""
        return {native.id: native.name for native in self._natives.values()}

    def __contains__(self, canister: bytes) -> bool:
        return canister in self._natives

    def call(self, task: Task) -> None:
        """Run one call and answer it."""
        call = Call(task.caller, self._router.now(), task.cycles)
        try:
            native = self._natives[task.canister]
            reply = native.answer(call, task.method, task.arg, query=False)
        except RejectError as error:
            self._router.respond(task.origin, b"", error.reject, task.cycles, task.root)
            return
        self._router.respond(task.origin, reply, None, call.cycles, task.root)

    def query(self, canister: bytes, sender: bytes, method: str, arg: bytes) -> bytes:
        """Answer a query; raises RejectError."""
        call = Call(sender, self._router.now())
        return self._natives[canister].answer(call, method, arg, query=True)

    def _create(self, controller: bytes, settings: dict[str, Any] | None, cycles: int) -> bytes:
        if cycles < fees.CREATE:
            text = f"Insufficient cycles attached: {cycles}, at least {fees.CREATE} are needed."
            raise RejectError(rejects.bad_payload(text))
        return self._management.add(controller, settings, cycles - fees.CREATE, None)

    def _top_up(self, canister: bytes, cycles: int) -> None:
        record = self._management.hosted(canister).record
        record.cycles = min(record.cycles + cycles, MAX_CYCLES)

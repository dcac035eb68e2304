"""Stock ic-py: its Agent and Canister work against the local network as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ic.agent import Agent
from ic.candid import Types, encode
from ic.canister import Canister
from ic.client import Client
from ic.identity import DelegateIdentity, Identity
from replica_kit import COUNTER, COUNTER_SERVICE, Raw

from icgpt.network import NetworkInfo

MANAGEMENT = """service ic : {
  provisional_create_canister_with_cycles : (record { amount : opt nat; }) ->
    (record { canister_id : principal; });
  install_code : (record { mode : variant { install; reinstall; upgrade; };
    canister_id : principal; wasm_module : blob; arg : blob; }) -> ();
  canister_status : (record { canister_id : principal; }) -> (record {
    status : variant { running; stopping; stopped; }; cycles : nat; });
  stop_canister : (record { canister_id : principal; }) -> ();
}"""


@pytest.mark.parametrize("kind", ["ed25519", "secp256k1"])
def test_the_life_of_a_canister(
    running: NetworkInfo, kind: str, wat: Callable[[str], bytes]
) -> None:
    agent = Agent(Identity(type=kind), Client(running.url))
    created = agent.update_raw(
        "aaaaa-aa",
        "provisional_create_canister_with_cycles",
        encode([{"type": Types.Record({"amount": Types.Opt(Types.Nat)}), "value": {"amount": []}}]),
        [Types.Record({"canister_id": Types.Principal})],
        effective_canister_id=running.default_effective_canister_id,
    )
    canister_id = created[0]["value"]["canister_id"].to_str()
    management = Canister(agent, "aaaaa-aa", MANAGEMENT)
    install: dict[str, Any] = {
        "mode": {"install": None},
        "canister_id": canister_id,
        "wasm_module": wat(COUNTER),
        "arg": b"",
    }
    management.install_code(install)
    canister = Canister(agent, canister_id, COUNTER_SERVICE)
    assert canister.inc() == [8]
    assert canister.get() == [8]
    with pytest.raises(Exception, match="boom!"):
        canister.boom()
    (status,) = management.canister_status({"canister_id": canister_id})
    assert status["status"] == {"running": None}
    management.stop_canister({"canister_id": canister_id})
    assert "is stopped" in canister.get()


@pytest.fixture
def wat() -> Callable[[str], bytes]:
    from replica_kit import wasm

    return wasm


def test_delegated_identities_are_understood(running: NetworkInfo, raw: Raw) -> None:
    """The delegation that a browser would have from a login, signed here by the root itself."""
    import json
    import time

    from replica_kit import Ed25519, delegate

    root, session = Ed25519(11), Identity(privkey="22" * 32)
    link = delegate(root, _Key(session.der_pubkey), time.time_ns() + 10**11)
    chain = {
        "publicKey": root.der.hex(),
        "delegations": [
            {
                "delegation": {
                    "pubkey": link["delegation"]["pubkey"].hex(),
                    "expiration": hex(link["delegation"]["expiration"]),
                },
                "signature": link["signature"].hex(),
            }
        ],
    }
    identity = DelegateIdentity.from_json(json.dumps(["", "22" * 32]), json.dumps(chain))
    agent = Agent(identity, Client(running.url))
    canister = raw.new()
    from icgpt.principal import to_text

    content = {
        "request_type": "query",
        "sender": identity.sender().bytes,
        "canister_id": canister,
        "method_name": "whoami",
        "arg": b"",
        "ingress_expiry": agent.get_expiry_date(),
    }
    from ic.agent import sign_request

    _, data = sign_request(content, identity)
    answer = agent.query_endpoint(to_text(canister), data)
    assert answer["reply"]["arg"] == root.principal


class _Key:
    """Just the public half."""

    def __init__(self, der: bytes) -> None:
        self.der = der

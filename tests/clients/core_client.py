"""What icp-py-core does with a canister; prints one JSON document of what each step gave.

Run with: python core_client.py URL ROOT_KEY CANISTER, with its packages and the shim on the path.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from icp_agent import agent as agent_module
from icp_agent.agent import Agent
from icp_agent.client import Client
from icp_canister.canister import Canister
from icp_canister.management import Management
from icp_certificate import certificate
from icp_identity.identity import Identity

SERVICE = "service : { inc : () -> (nat32); get : () -> (nat32) query; boom : () -> (nat32); }"


def outcome(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": work()}
    except Exception as error:  # noqa: BLE001 - told to the test
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    url, root_key, canister = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3]
    results = {}
    # The package checks certificates against mainnet's key only, unless told another one.
    certificate.IC_ROOT_KEY = agent_module.IC_ROOT_KEY = root_key
    for kind in ("ed25519", "secp256k1"):
        identity = Identity(type=kind)
        agent = Agent(identity, Client(url), root_key=root_key, verify_query_signatures=True)
        actor = Canister(agent, canister, SERVICE)
        results[kind] = outcome(lambda actor=actor: [actor.get(), actor.inc(), actor.get()])
    results["boom"] = outcome(actor.boom)
    fetched = outcome(lambda: Canister(agent, canister, auto_fetch_candid=True).get())
    results["fetched"] = fetched
    management = Management(agent)
    made = {"amount": [10**13], "settings": []}
    results["create"] = outcome(
        lambda: "canister_id" in str(management.provisional_create_canister_with_cycles(made))
    )
    wrong = bytearray(root_key)
    wrong[120] ^= 1
    certificate.IC_ROOT_KEY = bytes(wrong)
    results["wrong key"] = outcome(actor.inc)
    print(json.dumps(results, default=str))


main()

"""Agents: calls on canisters for one identity on one network, blocking or awaited.

    with Agent(url, root_key, identity) as agent:
        reply = agent.update(canister, "inc", argument)

    async with AsyncAgent(url, root_key, identity) as agent:
        reply = await agent.update(canister, "inc", argument)

Both take the same steps (`icgpt.protocol`); `close()` them, or use them as context managers.
"""

from __future__ import annotations

from typing import Final, TypeVar

from icgpt import protocol
from icgpt.protocol import MAX_ARGUMENT_BYTES, Caller
from icgpt.retries import Limits
from icgpt.steps import Awaiting, Blocking, Steps, run, run_async
from icgpt.transport import AsyncClosing, Closing, Transport

__all__ = ["MAX_ARGUMENT_BYTES", "Agent", "AsyncAgent", "Limits", "fetch_root_key"]

_ASKING: Final = Limits(query=20.0, exchange=10.0, patience=0.5)

T = TypeVar("T")


class Agent(Caller, Closing):
    """Speaks for one identity to one network; threads may share it.

    Args:
        url: of the network, such as http://127.0.0.1:4943 or https://icp-api.io.
        root_key: DER of the network's root key, under which every answer must verify.
        identity: who calls; anonymous when left out.
        limits: how long calls may take.
    """

    def _open(self) -> None:
        self.transport = Transport(self.url)

    def run(self, steps: Steps[T]) -> T:
        """Takes steps of the protocol."""
        return run(steps, self.transport.perform)

    query = Blocking(protocol.query)
    update = Blocking(protocol.update)
    read_state = Blocking(protocol.read_state)
    module_hash = Blocking(protocol.module_hash)
    controllers = Blocking(protocol.controllers)

    def close(self) -> None:
        """Ends the connections."""
        self.transport.close()


class AsyncAgent(Caller, AsyncClosing):
    """The same for asyncio; the calls are awaited, as many at once as there is work for.

    Args:
        url: of the network, such as http://127.0.0.1:4943 or https://icp-api.io.
        root_key: DER of the network's root key, under which every answer must verify.
        identity: who calls; anonymous when left out.
        limits: how long calls may take.
    """

    def _open(self) -> None:
        from icgpt.async_transport import AsyncTransport  # asyncio takes long to load

        self.transport = AsyncTransport(self.url)

    async def run(self, steps: Steps[T]) -> T:
        """Takes steps of the protocol."""
        return await run_async(steps, self.transport.perform)

    query = Awaiting(protocol.query)
    update = Awaiting(protocol.update)
    read_state = Awaiting(protocol.read_state)
    module_hash = Awaiting(protocol.module_hash)
    controllers = Awaiting(protocol.controllers)

    async def close(self) -> None:
        """Ends the connections."""
        await self.transport.close()


def fetch_root_key(url: str) -> bytes:
    """The root key that a network gives as its own: for local networks only, and then pinned."""
    url = url.rstrip("/")
    with Transport(url) as transport:
        return run(protocol.root_key(url, _ASKING), transport.perform)

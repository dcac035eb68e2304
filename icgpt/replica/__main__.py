"""Runs a local network: `python -m icgpt.replica --state-dir D --port P`.

Writes `network.json` into the state folder once it answers, and removes it when it ends. SIGTERM
and SIGINT end it after the message at hand. Exit code 3: the port is taken; 4: another process
works on the folder; 5: the state can't be read.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from icgpt.files import write_atomically
from icgpt.principal import to_text
from icgpt.replica.server import Server
from icgpt.replica.state import StateError
from icgpt.replica.subnet import InUseError, Subnet

# Between the threads for messages, queries and HTTP: Python's 5 ms make each wait for the others.
SWITCH_SECONDS = 0.0005
EXIT_PORT, EXIT_IN_USE, EXIT_STATE = 3, 4, 5
_LOG = logging.getLogger("icgpt.replica")


@dataclass(frozen=True)
class Settings:
    """How a network is to run.

    `domains` are the names that the gateway serves canisters below, `names` a file of further
    host names with their canisters; `delay` is added to every call, in seconds; `welcome` lets
    every user start with tokens; `sync` waits for the disk before anything counts as done.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 4943
    domains: tuple[str, ...] = ()
    names: Path | None = None
    delay: float = 0.0
    welcome: bool = True
    sync: bool = False


# Told what `network.json` holds, once the network answers.
Ready = Callable[[dict[str, Any]], None]


def main() -> int:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m icgpt.replica", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True, help="folder for all state")
    parser.add_argument("--port", type=int, default=4943, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--sync",
        action="store_true",
        help="wait for the disk: slower, but safe against power failures",
    )
    options = parser.parse_args()
    if not is_loopback(options.host):
        parser.error(f"--host {options.host}: only this machine itself may be listened on")
    sys.setswitchinterval(SWITCH_SECONDS)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = Settings(options.state_dir, options.host, options.port, sync=options.sync)
    return serve(settings, lambda _document: None)


def serve(settings: Settings, ready: Ready) -> int:
    """Run a network until told to stop; return the exit code."""
    server = Server(delay=settings.delay, domains=settings.domains, names=settings.names)
    try:
        subnet = Subnet(
            settings.folder, server.announce, welcome=settings.welcome, sync=settings.sync
        )
    except InUseError as error:
        _LOG.error("%s", error)
        return EXIT_IN_USE
    except StateError as error:
        _LOG.error("%s", error)
        return EXIT_STATE
    subnet.start()
    try:
        return asyncio.run(_serve(subnet, server, settings, ready))
    finally:
        subnet.stop()
        (settings.folder / "network.json").unlink(missing_ok=True)
        _LOG.info("stopped")


def is_loopback(host: str) -> bool:
    """Tell whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(subnet: Subnet, server: Server, settings: Settings, ready: Ready) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    runner = web.AppRunner(server.serve(subnet), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        try:
            await site.start()
        except OSError as error:
            _LOG.error("can't listen on %s:%d: %s", settings.host, settings.port, error)
            return EXIT_PORT
        port = runner.addresses[0][1]
        document = {
            "v": 1,
            "pid": os.getpid(),
            "port": port,
            "url": f"http://{settings.host}:{port}",
            "root_key": subnet.root_key.hex(),
            "default_effective_canister_id": to_text(subnet.default_effective_canister_id),
        }
        write_atomically(settings.folder / "network.json", json.dumps(document).encode())
        ready(document)
        _LOG.info("listening on %s", document["url"])
        await stopped.wait()
        _LOG.info("stopping")
    finally:
        server.close()
        await runner.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(main())

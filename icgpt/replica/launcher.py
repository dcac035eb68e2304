"""Runs the local network for `icp`, as the launcher that it asks for to start a network.

`icp network start` runs the program that ICP_CLI_NETWORK_LAUNCHER_PATH names, with options of its
own, waits for one line of JSON in `status.json` of the status folder, and ends it with SIGINT.
What it asks for and this network has not (Internet Identity, Bitcoin) ends the start with a word
about it. `icgpt network launcher` makes the program and prints its path.
See https://github.com/dfinity/icp-cli-network-launcher.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from icgpt.files import write_atomically
from icgpt.replica import __main__ as run

INTERFACE = "1"
PROGRAM = "icgpt-network-launcher"
_LOG = logging.getLogger("icgpt.replica")


def write_program(folder: Path) -> Path:
    """Write the program that starts this launcher with the Python that runs now."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / PROGRAM
    text = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m icgpt.replica.launcher "$@"\n'
    write_atomically(path, text.encode(), 0o700)
    return path


def main() -> int:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--interface-version", default=INTERFACE)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--status-dir", type=Path, required=True)
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--gateway-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--domain", action="append", default=[], help="of the HTTP gateway")
    parser.add_argument("--artificial-delay-ms", type=int, default=0)
    parser.add_argument("--subnet", action="append", default=[])
    parser.add_argument("--nns", action="store_true", help="ledgers are always there")
    parser.add_argument("--ii", action="store_true")
    parser.add_argument("--bitcoind-addr", action="append", default=[])
    parser.add_argument("--dogecoind-addr", action="append", default=[])
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    if options.interface_version.split(".")[0] != INTERFACE:
        parser.error(f"interface version {options.interface_version} is not known, only 1.x")
    for asked, what in (
        (options.ii, "Internet Identity (ii)"),
        (options.bitcoind_addr, "Bitcoin (bitcoind-addr)"),
        (options.dogecoind_addr, "Dogecoin (dogecoind-addr)"),
    ):
        if asked:
            parser.error(f"this network has no {what}; leave it out of the network's settings")
    if not run.is_loopback(options.bind):
        parser.error(f"--bind {options.bind}: only this machine itself may be listened on")
    level = logging.DEBUG if options.verbose else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    if len(options.subnet) > 1:
        _LOG.warning("this network has one subnet only, not %s", ", ".join(options.subnet))
    options.status_dir.mkdir(parents=True, exist_ok=True)
    settings = run.Settings(
        folder=options.state_dir,
        host=options.bind,
        port=options.gateway_port,
        domains=tuple(options.domain),
        names=options.status_dir / "custom-domains.txt",
        delay=options.artificial_delay_ms / 1000,
        welcome=False,  # `icp` gives its identities what they need
    )

    def ready(document: dict[str, Any]) -> None:
        status = {
            "v": "1",
            "instance_id": None,
            "config_port": None,
            "gateway_port": document["port"],
            "root_key": document["root_key"],
            "default_effective_canister_id": document["default_effective_canister_id"],
            "supported_features": ["custom-domains"],
        }
        line = json.dumps(status) + os.linesep
        write_atomically(options.status_dir / "status.json", line.encode())

    return run.serve(settings, ready)


if __name__ == "__main__":
    sys.exit(main())

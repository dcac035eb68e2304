"""How fast the local network takes updates: `./scripts/bench replica`.

Clients of one process send signed updates over HTTP and wait for their certificates; every reply is
read out of its certificate. No-op updates come from 16 clients at once, appends of 1.9 MB from one.
A client that verifies certificates checks each signature once for all replies that share it: how
long such a check takes, and how many there would have been, is told beside the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import cbor2
import page
from replica_kit import Raw, hash_of, lookup, verified, wasm

from icgpt import network
from icgpt.candid import unsigned_leb128
from icgpt.principal import to_text

RESULTS = page.FOLDER / "performance-replica.json"
CLIENTS = 16
CHUNK = 1_900_000
WAT = r"""
(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
  (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
  (memory 40)
  (global $end (mut i64) (i64.const 0))
  (func (export "canister_update noop") (call $reply))
  (func (export "canister_update append")
    (call $arg_copy (i32.const 0) (i32.const 0) (call $arg_size))
    (drop (call $grow (i64.const 29)))
    (call $write (global.get $end) (i64.const 0) (i64.extend_i32_u (call $arg_size)))
    (global.set $end (i64.add (global.get $end) (i64.extend_i32_u (call $arg_size))))
    (call $reply)))
"""


def envelopes(
    raw: Raw, canister: bytes, method: str, args: list[bytes]
) -> list[tuple[bytes, bytes]]:
    """Signed requests with their ids."""
    out = []
    for index, arg in enumerate(args):
        content = raw.call_content(canister, method, arg)
        content["nonce"] = hashlib.sha256(f"{method} {index}".encode()).digest()[:16]
        out.append((hash_of(content), cbor2.dumps(raw.envelope(content))))
    return out


async def send(url: str, clients: int, requests: list[tuple[bytes, bytes]]) -> list[Any]:
    """Send them all, so many at a time; return the certificates."""
    todo = iter(requests)
    found: list[Any] = []
    headers = {"Content-Type": "application/cbor"}

    async def client(session: aiohttp.ClientSession) -> None:
        for request_id, body in todo:
            async with session.post(url, data=body, headers=headers) as response:
                document = cbor2.loads(await response.read())
            tree = cbor2.loads(document["certificate"])["tree"]
            if lookup(tree, b"request_status", request_id, b"status") != b"replied":
                raise RuntimeError(f"no reply: {document}")
            found.append(document["certificate"])

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return found


def measure(folder: Path, count: int, appends: int) -> dict[str, Any]:
    """Start a network, measure, end it."""
    info = network.start(folder, port=0)
    try:
        raw = Raw(info.url, info.root_key)
        canister = raw.new(wasm(WAT))
        url = f"{info.url}/api/v3/canister/{to_text(canister)}/call"
        noops = envelopes(raw, canister, "noop", [b""] * count)
        begun = time.perf_counter()
        certificates = asyncio.run(send(url, CLIENTS, noops))
        noop_seconds = time.perf_counter() - begun
        signatures = {cbor2.loads(c)["signature"]: c for c in certificates}
        begun = time.perf_counter()
        sample = list(signatures.values())[:50]
        for certificate in sample:
            verified(certificate, info.root_key)
        check = (time.perf_counter() - begun) / len(sample)
        data = os.urandom(CHUNK)
        arg = b"DIDL\x01\x6d\x7b\x01\x00" + unsigned_leb128(CHUNK) + data
        pieces = envelopes(raw, canister, "append", [arg] * appends)
        begun = time.perf_counter()
        asyncio.run(send(url, 2, pieces))
        append_seconds = time.perf_counter() - begun
    finally:
        network.stop(folder)
    return {
        "noop_updates": count,
        "noop_clients": CLIENTS,
        "noop_per_second": round(count / noop_seconds, 1),
        "signatures": len(signatures),
        "signature_check_ms": round(check * 1000, 2),
        "checks_share_of_client_time": round(check * len(signatures) / noop_seconds, 3),
        "append_bytes": CHUNK,
        "append_mb_per_second": round(appends * CHUNK / append_seconds / 1e6, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} and the page")
    parser.add_argument("--updates", type=int, default=3_000)
    parser.add_argument("--appends", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.updates, options.appends)
    page.tell(options, "replica", RESULTS, result)


if __name__ == "__main__":
    main()

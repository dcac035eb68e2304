"""What an upload takes: `./scripts/bench upload`.

    ./scripts/bench upload                        GPT-2 124M's shape, random weights
    ./scripts/bench upload --cache FOLDER         keep the weights here
    ./scripts/bench upload --json --write

First instructions, equal on every machine: chunks into the canister alone, and set-ups of packed
weights. Then time on a local network of this machine, client and network on the same cores, with
the most memory that the client's process had, each upload from a process of its own. What a
precision is converted in is told apart: it is done once and kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import page
import shapes
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from lone_canister import LoneCanister, Spent
from wall_clock import machine

from icgpt import deploy, network
from icgpt.checkpoint import open_checkpoint
from icgpt.client import ModelCanister
from icgpt.connect import Network, connect
from icgpt.conversion import converted
from icgpt.identity import from_file
from icgpt.network import NetworkInfo
from icgpt.sending import CHUNK_BYTES, Outgoing, outgoing
from icgpt.upload import Step, upload

RESULTS = page.FOLDER / "performance-upload.json"
SHAPE = "gpt2-124m"
WAYS = {
    "f32, as it is": None,
    "f32, converted": "f32",
    "int16, converted": "int16",
    "int8, converted": "int8",
}


def send(canister: LoneCanister, file: Outgoing) -> Spent:
    """A file in chunks; gives what it took, everything included."""
    kind = {file.kind: None}
    spent = canister.update("begin", kind, file.length, file.sha256)[1]
    with file.path.open("rb") as source:
        for offset in range(0, file.length, CHUNK_BYTES):
            data = source.read(CHUNK_BYTES)
            spent = spent + canister.update("write", kind, offset, data)[1]
    return spent + canister.update("commit", kind, file.sha256)[1]


def instructions(model: Path, scratch: Path) -> dict[str, Any]:
    """Of uploads and set-ups, in the canister alone."""
    checkpoint = open_checkpoint(str(model))
    files = {kind: outgoing(kind, file.path) for kind, file in checkpoint.files.items()}
    hashes = {kind: file.sha256 for kind, file in files.items()}
    found: dict[str, Any] = {}
    for way, precision in WAYS.items():
        canister = LoneCanister(scratch / f"lone-{precision}", shapes.WASM.read_bytes())
        send(canister, files["config"])
        weights = files["safetensors"]
        if precision is not None:
            weights = converted(checkpoint, hashes, precision, lambda done, total: None)
        sent = send(canister, weights)
        setup = canister.update("setup_model")[1]
        canister.close()
        found[way] = {"bytes": weights.length, "upload": vars(sent), "setup": vars(setup)}
    return found


def timed(
    info: NetworkInfo, key: Path, canister: bytes, model: Path, precision: str | None
) -> dict[str, Any]:
    """Upload once; to be called in a process of its own."""
    marks: dict[str, list[float]] = {}

    def mark(step: Step) -> None:
        marks.setdefault(step.name, []).append(time.perf_counter())

    target = Network("local", info.url, info.root_key, info.default_effective_canister_id)
    checkpoint = open_checkpoint(str(model))
    begun = time.perf_counter()
    with connect(target, from_file(key)) as agent:
        done = upload(ModelCanister(agent, canister), checkpoint, mark, precision=precision)
    ended = time.perf_counter()
    sending = marks["setup"][0] - marks["upload"][0]
    converting = marks["convert"][-1] - marks["convert"][0] if "convert" in marks else 0.0
    return {
        "bytes": done.sent,
        "convert_seconds": round(converting, 2),
        "hash_seconds": round(marks["upload"][0] - begun - converting, 2),
        "upload_seconds": round(sending, 2),
        "mb_per_second": round(done.sent / sending / 1e6, 1),
        "setup_seconds": round(ended - marks["setup"][0], 2),
        "seconds": round(ended - begun, 2),
        "peak_mb": round(_peak_bytes() / 1e6),
    }


def _peak_bytes() -> int:
    """The most memory that this process has had; getrusage would tell that of its parent, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def times(model: Path, scratch: Path) -> dict[str, Any]:
    """Of all ways, on one local network; a canister for each."""
    found = {}
    key = scratch / "key.pem"
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(serialization.Encoding.PEM, *form))
    info = network.start(scratch / "network", port=0)
    try:
        target = Network("local", info.url, info.root_key, info.default_effective_canister_id)
        with connect(target, from_file(key)) as agent:
            for way, precision in WAYS.items():
                canister = deploy.new_canister(
                    agent, target, shapes.WASM.read_bytes(), deploy.EMPTY_ARGUMENT
                )
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    call = process.submit(timed, info, key, canister, model, precision)
                    found[way] = call.result()
                print(f"{way}: {found[way]['seconds']} s", file=sys.stderr)
    finally:
        network.stop(scratch / "network")
    return found


def table(results: dict[str, Any]) -> str:
    """Instructions, then times."""
    head = ["GPT-2 124M", "MB", "instructions a byte sent", "set-up, G, and page charges"]
    rows = []
    for way, counts in results["instructions"].items():
        sent, setup = counts["upload"], counts["setup"]
        each = (sent["instructions"] + sent["pages"]) / counts["bytes"]
        both = f"{setup['instructions'] / 1e9:.2f} + {setup['pages'] / 1e9:.2f}"
        rows.append([way, f"{counts['bytes'] / 1e6:.1f}", f"{each:.1f}", both])
    clock = [
        "GPT-2 124M",
        "converting",
        "hashing",
        "upload",
        "MB/s",
        "set-up",
        "all",
        "peak memory",
    ]
    seconds = [
        [
            way,
            *(
                f"{one[name]:.1f} s"
                for name in ("convert_seconds", "hash_seconds", "upload_seconds")
            ),
            f"{one['mb_per_second']:.0f}",
            f"{one['setup_seconds']:.1f} s",
            f"{one['seconds']:.1f} s",
            f"{one['peak_mb']} MB",
        ]
        for way, one in results["times"].items()
    ]
    return f"{page.table(head, rows)}\n\n{page.table(clock, seconds)}\n\n{results['machine']}."


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench upload")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} and the page")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the random weights here")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="icgpt-bench-") as name:
        scratch = Path(name)
        model = shapes.folder_of(SHAPE, options.cache or scratch)
        os.environ["ICGPT_CACHE_DIR"] = str(scratch / "times")
        (scratch / "times").mkdir()
        clock = times(model, scratch)
        results = {
            "machine": f"{machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            "shape": SHAPE,
            "instructions": instructions(model, scratch),
            "times": clock,
        }
    if options.write:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        page.put("upload", table(results))
    print(json.dumps(results) if options.json else table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

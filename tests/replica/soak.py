"""Kills the network again and again while it takes uploads and generates text.

Every request keeps its id until it is answered: after a kill the same envelope is sent again, as a
client would. So each must have run once: a counter and the length of an upload say whether it has.
Text generated at temperature 0 must always be the same. Files and memory are watched for growth.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cbor2
import requests
from model_kit import ROOT, new_identity, target, with_model
from replica_kit import Raw, hash_of, number, verified, wasm

from icgpt import deploy, network
from icgpt.candid import BLOB, FLOAT64, NAT8, NAT64, TEXT, Type, decode, encode
from icgpt.client import ModelCanister
from icgpt.connect import connect
from icgpt.principal import to_text
from icgpt.project import Project

CHUNK = 1_000_000
UPLOAD = 40 * CHUNK  # then it begins anew
KILL_AFTER = (0.02, 2.0)  # seconds, at random
PATIENCE = 60.0


@dataclasses.dataclass
class Report:
    """What a soak has seen."""

    kills: int = 0
    in_flight: int = 0  # kills while a request was being answered
    updates: int = 0
    appends: int = 0
    generations: int = 0
    slowest_start_seconds: float = 0.0
    folder_mb: list[float] = dataclasses.field(default_factory=list)
    memory_mb: list[float] = dataclasses.field(default_factory=list)


class LostError(Exception):
    """The network has lost or done twice what it should not have."""


class Soak:
    """One run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self._folder = folder
        self._state = folder / "state"
        self.report = Report()
        self._info = network.start(self._state, port=0)
        raw = self._raw()
        self._counter = raw.new(wasm())
        project = folder / "project"
        project.mkdir()
        (project / "dfx.json").write_text("{}")
        identity = new_identity(folder / "identity.pem")
        agent = connect(target(self._info), identity)
        module = (ROOT / "canister" / "build" / "model.wasm.gz").read_bytes()
        canisters = []
        for name in ("model", "second"):
            place = project / name
            place.mkdir()
            (place / "dfx.json").write_text("{}")
            done = deploy.deploy(agent, target(self._info), Project(place), "model", module)
            canisters.append(ModelCanister(agent, done.canister_id))
        with_model(canisters[0], "shakespeare-char")
        for canister in canisters:
            canister.add_manager(raw.sender)
        self._model, self._upload = (c.id for c in canisters)
        agent.close()
        self._count = self._length = 0
        self._text = self._generate()

    def _raw(self) -> Raw:
        return Raw(self._info.url, self._info.root_key)

    def run(self, seconds: float) -> None:
        """Go on for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._life()
        self._restart()
        self._check()

    def _life(self) -> None:
        """From a restart to the next kill."""
        killed = threading.Event()

        def kill() -> None:
            time.sleep(self._random.uniform(*KILL_AFTER))
            killed.set()
            os.kill(self._info.pid, signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        work = (self._increase, self._append, self._append, self._generate_again)
        try:
            while not killed.is_set():
                self._random.choice(work)()
        finally:
            thread.join()
        self.report.kills += 1
        self._watch()
        self._restart()
        self._check()

    def _watch(self) -> None:
        size = sum(p.stat().st_blocks * 512 for p in self._state.rglob("*") if p.is_file())
        self.report.folder_mb.append(round(size / 1e6, 1))

    def _restart(self) -> None:
        if network.status(self._state) is not None:
            return
        begun = time.monotonic()
        self._info = network.start(self._state, port=self._info.port)
        taken = time.monotonic() - begun
        self.report.slowest_start_seconds = max(self.report.slowest_start_seconds, taken)
        status = Path(f"/proc/{self._info.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        self.report.memory_mb.append(round(int(line.split()[1]) / 1e3, 1))

    def _call(self, canister: bytes, method: str, arg: bytes) -> bytes:
        """Send a request until it is answered; the same one each time."""
        raw = self._raw()
        content = raw.call_content(canister, method, arg)
        envelope = cbor2.dumps(raw.envelope(content))
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                response = self._raw().post(f"v3/canister/{to_text(canister)}/call", envelope)
                if response.status_code == 200:
                    document = cbor2.loads(response.content)
                    if "certificate" not in document:
                        raise LostError(f"{method} was refused: {document}")
                    tree = verified(document["certificate"], self._info.root_key)
                    status, value = raw.outcome(tree, hash_of(content))
                    if status == "replied":
                        return bytes(value)
                    raise LostError(f"{method} was not answered but {status}: {value}")
                if response.status_code != 202:
                    raise LostError(f"{method}: {response.status_code} {response.text}")
            except requests.RequestException:
                self.report.in_flight += 1
                self._restart_when_dead()
        raise LostError(f"{method} had no answer within {PATIENCE:.0f} s")

    def _restart_when_dead(self) -> None:
        for _ in range(500):
            if network.status(self._state) is None:
                break
            time.sleep(0.01)
        self._restart()

    def _increase(self) -> None:
        self._count += 1
        found = number(self._call(self._counter, "inc", b""))
        if found != self._count:
            raise LostError(f"the counter is {found} after {self._count} requests")
        self.report.updates += 1

    def _append(self) -> None:
        if self._length >= UPLOAD:
            self._call(self._upload, "clear_safetensors_bytes", encode([], []))
            self._length = 0
        data = self._random.randbytes(CHUNK)
        self._call(self._upload, "append_safetensors_bytes", encode([BLOB], [data]))
        self._length += CHUNK
        self.report.appends += 1

    def _generate(self) -> str:
        kinds: list[Type] = [TEXT, NAT8, FLOAT64]
        reply = self._call(self._model, "generate", encode(kinds, ["ROMEO:", 40, 0.0]))
        return reply.hex()

    def _generate_again(self) -> None:
        if self._generate() != self._text:
            raise LostError("the same question has another answer")
        self.report.generations += 1

    def _check(self) -> None:
        """Compare what the canisters hold with what was acknowledged."""
        raw = self._raw()
        count = number(raw.query(self._counter, "get"))
        method = "safetensors_bytes_length"
        (length,) = decode(raw.query(self._upload, method, encode([], [])), [NAT64])
        if (count, length) != (self._count, self._length):
            raise LostError(f"{count} and {length} after {self._count} and {self._length}")

    def close(self) -> None:
        """End the network."""
        network.stop(self._state)


def soak(minutes: float, seed: int, folder: Path) -> dict[str, Any]:
    """Run, and return the report; raises LostError."""
    run = Soak(folder, seed)
    try:
        run.run(minutes * 60)
    finally:
        run.close()
    found = dataclasses.asdict(run.report)
    for name in ("folder_mb", "memory_mb"):
        values = found.pop(name)
        half = len(values) // 2
        found[f"{name}_first_half"] = max(values[:half], default=0)
        found[f"{name}_second_half"] = max(values[half:], default=0)
    return found


def main() -> None:
    """Run for the minutes asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(soak(options.minutes, options.seed, Path(folder)), indent=2))


if __name__ == "__main__":
    main()

"""Milliseconds a token on one thread: ours beside PyTorch and CTranslate2, in one run.

    ./scripts/bench wall                            GPT-2 124M's shape, random weights
    ./scripts/bench wall --python torch=PATH        the Python that has torch, if another one
    ./scripts/bench wall --rounds 9 --tokens 64     more rounds, or longer ones
    ./scripts/bench wall --cache FOLDER --json --write

All engines are loaded first. Then each makes the same number of tokens after a prompt of one, in
turn, round after round, and the median round counts: what slows the machine slows them all. The
canister runs as the replica runs it, metered; the two requests that a figure takes the difference
of leave out what a message costs by itself. In process the same engine runs in Python, without a
meter; eight answers at once share their time. Engines that are not installed are left out and
named. `pip install torch ctranslate2` (or `./scripts/setup --train` for torch) brings them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import page
import shapes
from engine_counts import Bench
from lone_canister import LoneCanister

from icgpt.checkpoint import open_checkpoint
from icgpt.engine import Engine

RESULTS = page.FOLDER / "performance-wall.json"
SHAPE = "gpt2-124m"
PEERS = {
    "torch-f32": "PyTorch, f32",
    "torch-linear-int8": "PyTorch, int8 on nn.Linear alone, as quantize_dynamic leaves GPT-2",
    "torch-int8": "PyTorch, int8 on every layer",
    "ctranslate2-int8": "CTranslate2, int8 on every layer",
}
OURS = {
    f"{way}-{precision}": f"{title}, {precision}{more}"
    for precision in shapes.PRECISIONS
    for way, title, more in (
        ("ours", "ours in the canister", ""),
        ("in-process", "ours in process", ""),
        ("eight", "ours in process", ", eight at once"),
    )
}


class Timed(Protocol):
    """Something that makes tokens."""

    def seconds(self, tokens: int) -> float:
        """How long so many tokens take after a prompt of one."""

    def close(self) -> None:
        """End it."""


class Canister:
    """The canister."""

    def __init__(self, folder: Path, model: Path, precision: str) -> None:
        self._canister = LoneCanister(folder, shapes.WASM.read_bytes())
        self._canister.upload(model)
        self._canister.set_up(precision)
        self._bench = Bench(self._canister)

    def seconds(self, tokens: int) -> float:
        return self._timed(tokens + 1) - self._timed(1)

    def _timed(self, tokens: int) -> float:
        request = self._bench.request(1, tokens)
        start = time.perf_counter()
        self._canister.update("complete", *request)
        return time.perf_counter() - start

    def close(self) -> None:
        self._canister.close()


class InProcess:
    """The engine in this process: several answers at once, or one."""

    def __init__(self, engine: Engine, answers: int) -> None:
        self._engine = engine
        self._answers = answers

    def seconds(self, tokens: int) -> float:
        options: dict[str, Any] = {"temperature": 0.0, "context": "stop"}
        for answer in range(self._answers):
            self._engine.submit([answer + 3], max_new_tokens=tokens + 1, **options)
        self._engine.step()
        start = time.perf_counter()
        while self._engine.running:
            self._engine.step()
        return (time.perf_counter() - start) / self._answers

    def close(self) -> None:
        self._engine.close()


class Peer:
    """A process of `peers.py`."""

    def __init__(self, python: str, way: str, model: Path) -> None:
        command = [python, "-W", "ignore", str(Path(__file__).with_name("peers.py")), way, model]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._line() != "ready":
            self.close()
            raise SystemExit(f"{way} did not start; its words stand above")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def seconds(self, tokens: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"1 {tokens}\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def has(python: str, module: str) -> bool:
    """Whether a Python can import a module."""
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0


def machine() -> str:
    """The processor's name, and what else tells machines apart."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        flags = next((line for line in lines if line.startswith("flags")), "")
        vnni = ", with VNNI" if "vnni" in flags else ", without VNNI"
        name = (names[0] if names else name) + vnni
    return f"{name}, {platform.system()}"


def measure(engines: dict[str, Timed], rounds: int, tokens: int) -> dict[str, float]:
    """Milliseconds a token: the median of the rounds."""
    found: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds):
        for name, engine in engines.items():
            found[name].append(1000 * engine.seconds(tokens) / tokens)
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    return {name: round(statistics.median(times), 3) for name, times in found.items()}


def table(results: dict[str, Any]) -> str:
    """Milliseconds, and each of ours as a share of the others."""
    times = results["milliseconds"]
    ours = [name for name in OURS if name in times]
    rows = []
    for name, title in (OURS | PEERS).items():
        if name in times:
            ratios = [f"{times[mine] / times[name]:.2f}" for mine in ours]
            rows.append([title, f"{times[name]:.1f}", *ratios])
    head = ["GPT-2 124M, one thread", "ms a token", *(f"{OURS[mine]}, ratio" for mine in ours)]
    told = (
        f"{results['machine']}; median of {results['rounds']} rounds of {results['tokens']} tokens."
    )
    return page.table(head, rows) + "\n\n" + told


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench wall")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} and the page")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--precision", action="append", choices=shapes.PRECISIONS)
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the random weights here")
    parser.add_argument(
        "--python", action="append", default=[], metavar="MODULE=PATH", help="who has that module"
    )
    options = parser.parse_args(arguments)
    pythons = dict(entry.split("=", 1) for entry in options.python)
    with tempfile.TemporaryDirectory(prefix="icgpt-bench-") as folder:
        model = shapes.folder_of(SHAPE, options.cache or Path(folder))
        engines: dict[str, Timed] = {}
        try:
            for precision in options.precision or shapes.PRECISIONS:
                engines[f"ours-{precision}"] = Canister(Path(folder) / precision, model, precision)
                engine = Engine.load(open_checkpoint(str(model)), precision)
                engines[f"in-process-{precision}"] = InProcess(engine, 1)
                engines[f"eight-{precision}"] = InProcess(engine, 8)
            for way in PEERS:
                module = way.split("-")[0]
                python = pythons.get(module, sys.executable)
                if has(python, module):
                    engines[way] = Peer(python, way, model)
                else:
                    print(f"{module} is not installed: {way} is left out", file=sys.stderr)
            times = measure(engines, options.rounds, options.tokens)
        finally:
            for engine in engines.values():
                engine.close()
    results = {
        "machine": machine(),
        "rounds": options.rounds,
        "tokens": options.tokens,
        "milliseconds": times,
    }
    if options.write:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        page.put("wall", table(results))
    print(json.dumps(results) if options.json else table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Tokens a second over HTTP on one core: `icgpt serve` beside PyTorch, in one run.

    ./scripts/bench serve                           GPT-2 124M's shape, random weights
    ./scripts/bench serve --python PATH             the Python that has torch and transformers
    ./scripts/bench serve --rounds 5 --tokens 64    more rounds, or longer answers
    ./scripts/bench serve --cache FOLDER --json --write

Both services run all the time, each on the same core, and one rests while the other works. In each
round both write one answer, and then eight that are asked for at once, which PyTorch writes one
after another. Answers are greedy and of the same length. The median of the rounds counts. Then
eight clients ask our service for streams, again and again: how long answers take, and until the
first token. In the end eight long streams hold all places and a ninth caller waits; one stream is
cut, and it counts how long it takes until the ninth caller has a token. The clients run on the
other cores.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import page
import shapes
from wall_clock import machine

sys.path.append(str(Path(__file__).parents[1]))
from instruct import instruct_tokenizer

RESULTS = page.FOLDER / "performance-serve.json"
SHAPE = "gpt2-124m"
AT_ONCE = 8
PROMPT = "The quick brown fox jumps over the lazy dog, and then"
TITLES = {"ours": "`icgpt serve`, int8", "torch": "PyTorch, `quantize_dynamic`"}


class Service:
    """A service in a process that has one core to itself."""

    def __init__(self, command: Sequence[str], core: int, port: Callable[[str], int]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        self._port = port(self._process.stdout.readline())

    def post(self, path: str, body: Any) -> http.client.HTTPResponse:
        """An answer, to be read."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"{path}: {response.status} {response.read().decode()}")
        return response

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


class Ours(Service):
    """`icgpt serve`."""

    def __init__(self, model: Path, core: int) -> None:
        command = [sys.executable, "-m", "icgpt", "serve", "--local", str(model), "--port", "0"]
        super().__init__(
            [*command, "--json"], core, lambda line: int(json.loads(line)["urls"][0].split(":")[-1])
        )

    def write(self, tokens: int) -> int:
        """How many tokens an answer has."""
        done = json.load(self.post("/v1/completions", _asked(tokens)))
        return int(done["usage"]["completion_tokens"])

    def stream(self, tokens: int) -> tuple[float, float]:
        """Seconds until the first token of an answer, and until its end."""
        began = time.perf_counter()
        response = self.post("/v1/completions", {**_asked(tokens), "stream": True})
        response.readline()
        first = time.perf_counter() - began
        response.read()
        return first, time.perf_counter() - began

    def freed(self, tokens: int) -> float:
        """Seconds from the end of a caller's connection until the next in line has a token."""
        long = {**_asked(tokens), "stream": True}
        held = [self.post("/v1/completions", long) for _ in range(AT_ONCE)]
        for response in held:
            response.readline()
        got: list[float] = []

        def waits() -> None:
            with self.post("/v1/completions", {**_asked(1), "stream": True}) as response:
                response.readline()
                got.append(time.perf_counter())

        ninth = threading.Thread(target=waits)
        ninth.start()
        time.sleep(1)
        if got:
            raise SystemExit("the ninth caller did not have to wait")
        cut = time.perf_counter()
        held.pop().close()
        ninth.join()
        for response in held:
            response.close()
        return got[0] - cut


class Torch(Service):
    """`torch_service.py`."""

    def __init__(self, python: str, model: Path, core: int) -> None:
        script = Path(__file__).with_name("torch_service.py")
        super().__init__([python, "-W", "ignore", str(script), str(model)], core, int)

    def write(self, tokens: int) -> int:
        """How many tokens an answer has."""
        done = json.load(self.post("/generate", {"prompt": PROMPT, "max_new_tokens": tokens}))
        return int(done["tokens"])


def _asked(tokens: int) -> dict[str, Any]:
    return {"prompt": PROMPT, "max_tokens": tokens, "min_tokens": tokens, "temperature": 0}


def _tokenizer(model: Path) -> str:
    """GPT-2's tokenizer.json, without the tokens that the model's vocabulary lacks."""
    size = json.loads((model / "config.json").read_text())["vocab_size"]
    words = json.loads(instruct_tokenizer().to_str())
    words["added_tokens"] = [one for one in words["added_tokens"] if one["id"] < size]
    return json.dumps(words)


def speed(service: Ours | Torch, count: int, tokens: int) -> float:
    """Tokens a second, of so many answers that are asked for at once."""
    began = time.perf_counter()
    with ThreadPoolExecutor(count) as clients:
        written = list(clients.map(service.write, [tokens] * count))
    seconds = time.perf_counter() - began
    if written != [tokens] * count:
        raise SystemExit(f"{written} tokens instead of {tokens}")
    return count * tokens / seconds


def latencies(service: Ours, each: int, tokens: int) -> dict[str, float]:
    """Milliseconds of answers and of their first tokens, with eight clients that never rest."""
    found: list[tuple[float, float]] = []
    lock = threading.Lock()

    def client() -> None:
        for _ in range(each):
            one = service.stream(tokens)
            with lock:
                found.append(one)

    clients = [threading.Thread(target=client) for _ in range(AT_ONCE)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    firsts, wholes = (sorted(1000 * one[place] for one in found) for place in (0, 1))
    return {
        "first_p50": round(statistics.median(firsts), 1),
        "first_p99": round(firsts[int(0.99 * (len(firsts) - 1))], 1),
        "answer_p50": round(statistics.median(wholes), 1),
        "answer_p99": round(wholes[int(0.99 * (len(wholes) - 1))], 1),
    }


def measure(services: dict[str, Any], rounds: int, tokens: int, each: int) -> dict[str, Any]:
    """All figures."""
    found: dict[str, dict[str, list[float]]] = {name: {"one": [], "eight": []} for name in services}
    for service in services.values():
        service.write(2)
    for turn in range(rounds):
        for name, service in services.items():
            found[name]["one"].append(speed(service, 1, tokens))
            found[name]["eight"].append(speed(service, AT_ONCE, tokens))
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    cuts = [services["ours"].freed(10 * tokens) for _ in range(rounds)]
    alone = [services["ours"].stream(tokens)[0] for _ in range(rounds)]
    return {
        "speeds": {
            name: {kind: round(statistics.median(values), 1) for kind, values in kinds.items()}
            for name, kinds in found.items()
        },
        "milliseconds": {
            "first_alone": round(1000 * statistics.median(alone), 1),
            **latencies(services["ours"], each, tokens),
            "freed_worst": round(1000 * max(cuts), 1),
        },
    }


def table(results: dict[str, Any]) -> str:
    """The speeds with their ratios, and the times."""
    speeds = results["speeds"]
    rows = []
    for name, title in TITLES.items():
        if name in speeds:
            cells = [f"{speeds[name][kind]:.1f}" for kind in ("one", "eight")]
            ratios = [
                f"{speeds['ours'][kind] / speeds[name][kind]:.1f}" for kind in ("one", "eight")
            ]
            rows.append([title, cells[0], cells[1], *ratios])
    head = ["tokens a second", "one request", "eight at once", "ours over it, one", "eight"]
    times = results["milliseconds"]
    words = {
        "first_alone": "first token, one client",
        "first_p50": "first token, eight clients, median",
        "first_p99": "first token, eight clients, 99 of 100",
        "answer_p50": "whole answer, eight clients, median",
        "answer_p99": "whole answer, eight clients, 99 of 100",
        "freed_worst": "from a cut stream to the next caller's first token, worst",
    }
    told = (
        f"{results['machine']}, load {results['load']}; median of {results['rounds']} rounds, "
        f"{results['tokens']} tokens an answer; {results['answers']} answers for the times."
    )
    lines = [[words[name], f"{times[name]:,.0f} ms"] for name in words]
    return "\n\n".join((page.table(head, rows), page.table(["`icgpt serve`", "time"], lines), told))


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench serve")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} and the page")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--each", type=int, default=13, help="answers that each client asks for")
    parser.add_argument("--core", type=int, default=0, help="where the services run")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the random weights here")
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="who has torch")
    options = parser.parse_args(arguments)
    services: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="icgpt-bench-") as folder:
        model = shapes.folder_of(SHAPE, options.cache or Path(folder))
        served = Path(folder) / "served"
        served.mkdir()
        for name in ("config.json", "model.safetensors"):
            (served / name).symlink_to(model / name)
        (served / "tokenizer.json").write_text(_tokenizer(served))
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {options.core} or {options.core})
        try:
            services["ours"] = Ours(served, options.core)
            services["torch"] = Torch(options.python, served, options.core)
            found = measure(services, options.rounds, options.tokens, options.each)
        finally:
            for service in services.values():
                service.close()
    results = {
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "rounds": options.rounds,
        "tokens": options.tokens,
        "answers": AT_ONCE * options.each,
        **found,
    }
    if options.write:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        page.put("serve", table(results))
    print(json.dumps(results) if options.json else table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

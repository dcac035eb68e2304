"""How many instructions the engine takes: the same figures on every machine, for one built module.

    ./scripts/bench engine                    a table
    ./scripts/bench engine --json             the same as JSON
    ./scripts/bench engine --shape demo       one shape (repeat for more)
    ./scripts/bench engine --write            into docs/performance.json, keeping other shapes there

How each figure is measured stands in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lone_canister import LoneCanister, Spent

from icgpt.interface import OPTION_TYPES
from icgpt.replica.weights import CURRENT

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "docs" / "performance.json"
WASM = ROOT / "canister" / "build" / "model.wasm.gz"

CONTEXTS = (1, 128, 512, 1023)
PROMPTS = (32, 128, 512, 1023)

Figures = dict[str, Any]


def demo(_folder: Path) -> Path:
    """The trained character model in the box."""
    return ROOT / "icgpt" / "models" / "shakespeare-char"


def gpt2_124m(folder: Path) -> Path:
    """The shape of GPT-2 124M with seeded random weights."""
    sys.path.insert(0, str(ROOT / "tests" / "golden"))
    import recipe

    recipe.write(folder)
    return folder


SHAPES: dict[str, Callable[[Path], Path]] = {"demo": demo, "gpt2-124m": gpt2_124m}


class Bench:
    """One model in one canister."""

    def __init__(self, canister: LoneCanister) -> None:
        self.canister = canister
        info = canister.query("model_info")
        self.precision = str(info["precision"])
        self.n_ctx = int(info["architecture"]["n_ctx"])
        self._vocabulary = int(info["architecture"]["vocab_size"])
        self._known: dict[tuple[int, int], Spent] = {}

    def complete(self, prompt: int, new: int) -> Spent:
        """What it takes to complete a prompt of so many tokens by so many, greedily."""
        if (prompt, new) not in self._known:
            options: dict[str, Any] = dict.fromkeys(OPTION_TYPES)
            options |= {"max_new_tokens": new, "temperature": 0.0, "seed": 1, "context": "stop"}
            ids = [(7 * i + 3) % self._vocabulary for i in range(prompt)]
            done, spent = self.canister.update("complete", {"token_ids": ids}, options)
            if len(done["token_ids"]) != new:
                raise SystemExit(f"the model stopped after {len(done['token_ids'])} tokens")
            self._known[prompt, new] = spent
        return self._known[prompt, new]

    def decode(self, context: int) -> int:
        """The token that makes the context so long: it sees so many keys, its own among them."""
        before = max(context - 1, 1)
        return self.complete(before, 2).instructions - self.complete(before, 1).instructions

    def within(self, sizes: Sequence[int], most: int) -> list[int]:
        """Those sizes, and the last before the context is full; none above `most`."""
        last = {self.n_ctx - 1} if self.n_ctx <= max(sizes) else set()
        return sorted(n for n in {*sizes, *last} if n <= min(self.n_ctx - 1, most))

    def tokens_per_update(self) -> int:
        """The most tokens that the canister makes in one message, from a prompt of one token."""
        most = self.n_ctx - 1
        low, high = 1, min(most, 2 * CURRENT.limits.update // max(self.decode(1), 1))
        while low < high:
            guess = (low + high + 1) // 2
            if self.complete(1, guess).messages == 1:
                low = guess
            else:
                high = guess - 1
        return low

    def tokens_per_query(self) -> int:
        """The most tokens whose making would fit a query, its page charges included."""
        low, high = 0, min(self.n_ctx - 1, CURRENT.limits.query // max(self.decode(1), 1))
        while low < high:
            guess = (low + high + 1) // 2
            spent = self.complete(1, guess)
            if spent.instructions + spent.pages <= CURRENT.limits.query:
                low = guess
            else:
                high = guess - 1
        return low


def measure(shape: str, *, quick: bool = False) -> dict[str, Figures]:
    """All figures of a shape, by precision; `quick` leaves out what takes long."""
    with tempfile.TemporaryDirectory(prefix="icgpt-bench-") as folder:
        source = SHAPES[shape](Path(folder) / "model")
        canister = LoneCanister(Path(folder) / "canister", WASM.read_bytes())
        try:
            upload, setup = canister.load(source)
            upgrade = canister.upgrade()
            bench = Bench(canister)
            most = 128 if quick else bench.n_ctx
            contexts, prompts = bench.within(CONTEXTS, most), bench.within(PROMPTS, most)
            figures: Figures = {
                "decode": {str(n): bench.decode(n) for n in contexts},
                "prefill": {str(n): bench.complete(n, 1).instructions for n in prompts},
                "upload": upload.instructions,
                "setup": setup.instructions,
                "upgrade": upgrade.instructions,
            }
            if not quick:
                figures["tokens_per_update"] = bench.tokens_per_update()
                figures["tokens_per_query"] = bench.tokens_per_query()
            figures["pages"] = {
                "decode": bench.complete(1, 1).pages,
                "prefill": {str(n): bench.complete(n, 1).pages for n in prompts},
                "upload": upload.pages,
                "setup": setup.pages,
                "upgrade": upgrade.pages,
            }
            return {bench.precision: figures}
        finally:
            canister.close()


def grown(before: Any, now: Any, where: str = "", by: float = 0.01) -> list[str]:
    """The counts that are larger than before by more than `by`; tokens are better when larger."""
    if isinstance(before, dict):
        out: list[str] = []
        for key in before.keys() & now.keys():
            out += grown(before[key], now[key], f"{where} {key}".strip(), by)
        return sorted(out)
    worse = now < before * (1 - by) if "tokens_per" in where else now > before * (1 + by)
    return [f"{where}: {before:,} before, {now:,} now"] if worse else []


def table(results: dict[str, dict[str, Figures]]) -> str:
    """The figures as text."""
    lines = []
    for shape, precisions in results.items():
        for precision, figures in precisions.items():
            lines.append(f"{shape}, {precision}: instructions, and page charges on top")
            pages = figures["pages"]
            for kind in ("decode", "prefill"):
                for n, count in figures[kind].items():
                    paid = pages["decode"] if kind == "decode" else pages["prefill"][n]
                    lines.append(f"  {kind} {n:>5} {count:>18,} {paid:>16,}")
            for name in ("upload", "setup", "upgrade"):
                lines.append(f"  {name:<13} {figures[name]:>18,} {pages[name]:>16,}")
            for name in ("tokens_per_update", "tokens_per_query"):
                if name in figures:
                    lines.append(f"  {name:<20} {figures[name]:>11,}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench engine")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--shape", action="append", choices=list(SHAPES))
    options = parser.parse_args(arguments)
    if not WASM.is_file():
        parser.error("the canister is not built; run ./scripts/setup first")
    results = {shape: measure(shape) for shape in options.shape or SHAPES}
    if options.write:
        whole = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        RESULTS.write_text(json.dumps(whole | results, indent=1) + "\n")
    print(json.dumps(results) if options.json else table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How many instructions the engine takes: the same figures on every machine, for one built module.

    ./scripts/bench engine                              every shape in every precision, as tables
    ./scripts/bench engine --json                       the same as JSON
    ./scripts/bench engine --shape demo --precision int8    some (repeat either for more)
    ./scripts/bench engine --cache FOLDER               keep the random weights for the next time
    ./scripts/bench engine --write                      into docs/, keeping what isn't measured now

How each figure is measured stands in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import page
import scaling
import shapes
from lone_canister import LoneCanister, RefusedError, Spent

from icgpt.interface import METHODS, OPTION_TYPES
from icgpt.replica.weights import CURRENT

RESULTS = page.FOLDER / "performance.json"
CONTEXTS = (1, 128, 512, 1023)
PROMPTS = (32, 128, 512, 1023)
TOGETHER = 8  # jobs that run at once, for the price of a token then
TOGETHER_AT = 128
QUICK = 128  # the longest context of a quick run
FEW_PAGES = 8 * 208_000  # eight Wasm pages accessed, written and copied

Figures = dict[str, Any]


class Bench:
    """One model of one precision in one canister."""

    def __init__(self, canister: LoneCanister) -> None:
        self.canister = canister
        architecture = canister.query("model_info")[0]["architecture"]
        self.n_ctx = int(architecture["n_ctx"])
        self._vocabulary = int(architecture["vocab_size"])
        self._known: dict[tuple[int, int], Spent] = {}

    def request(
        self, prompt: int, new: int, salt: int | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A prompt of so many tokens and greedy options for so many new ones.

        Prompts of different lengths or salts differ from their first token on, so that nothing
        kept from one serves the other.
        """
        start = 3 + (prompt if salt is None else salt)
        options: dict[str, Any] = dict.fromkeys(OPTION_TYPES)
        options |= {"max_new_tokens": new, "temperature": 0.0, "seed": 1, "context": "stop"}
        ids = [(7 * i + start) % self._vocabulary for i in range(prompt)]
        return {"token_ids": ids}, options

    def complete(self, prompt: int, new: int) -> Spent:
        """What it takes to complete a prompt of so many tokens by so many."""
        if (prompt, new) not in self._known:
            done, spent = self.canister.update("complete", *self.request(prompt, new))
            if len(done["token_ids"]) != new:
                raise SystemExit(f"the model stopped after {len(done['token_ids'])} tokens")
            self._known[prompt, new] = spent
        return self._known[prompt, new]

    def decode(self, context: int) -> int:
        """The token whose making sees so many tokens, itself among them."""
        if context == 1:
            # The prompt's own pass comes with all that a request takes, so the next one is told.
            context = 2
        return self.complete(1, context).instructions - self.complete(1, context - 1).instructions

    def decode_together(self, context: int) -> int:
        """A token when `TOGETHER` jobs run at once, each with a context of about this length."""
        prompt = context - 16
        # Salts at which no prompt begins as another one here, even in the demo's vocabulary of 65.
        few, many = self._jobs(prompt, 8, salt=40), self._jobs(prompt, 24, salt=48)
        return (many - few) // (16 * TOGETHER)

    def _jobs(self, prompt: int, new: int, salt: int) -> int:
        spent = 0
        ids = []
        for job in range(TOGETHER):
            request = self.request(prompt, new, salt + job)
            job_id, submitted = self.canister.update("submit", *request)
            ids.append(job_id)
            spent += submitted.instructions
        spent += self.canister.run_timer().instructions
        for job_id in ids:
            done, _ = self.canister.query("poll", job_id, 0)
            if done["finish"] is None or len(done["token_ids"]) != new:
                raise SystemExit(f"a job ended with {done}")
        return spent

    def within(self, sizes: Sequence[int], most: int) -> list[int]:
        """Those sizes, and the last before the context is full; none above `most`."""
        last = {self.n_ctx - 1} if self.n_ctx <= max(sizes) else set()
        return sorted(n for n in {*sizes, *last} if n <= min(self.n_ctx - 1, most))

    def tokens_per_update(self) -> int:
        """The most tokens that the canister makes in one message, from a prompt of one token."""
        most = self.n_ctx - 1
        low, high = 0, min(most, 2 * CURRENT.limits.update // max(self.decode(1), 1))
        while low < high:
            guess = (low + high + 1) // 2
            if self.complete(1, guess).messages == 1:
                low = guess
            else:
                high = guess - 1
        return low

    def tokens_per_query(self) -> int:
        """The most tokens that a query makes, page charges included."""
        done, _ = self.canister.query("complete_query", *self.request(1, self.n_ctx - 1))
        return len(done["token_ids"])


def measure(
    shape: str,
    precisions: Sequence[str] = shapes.PRECISIONS,
    cache: Path | None = None,
    *,
    quick: bool = False,
) -> Iterator[tuple[str, Figures]]:
    """The figures of a shape, precision by precision; `quick` leaves out what takes long."""
    with tempfile.TemporaryDirectory(prefix="icgpt-bench-") as folder:
        source = shapes.folder_of(shape, cache or Path(folder))
        canister = LoneCanister(Path(folder) / "canister", shapes.WASM.read_bytes())
        try:
            upload = canister.upload(source)
            for precision in precisions:
                most = QUICK if quick else shapes.longest(shape, precision)
                try:
                    yield precision, _figures(canister, precision, upload, most, quick=quick)
                except RefusedError as error:
                    print(f"{shape} in {precision} does not run: {error}", file=sys.stderr)
        finally:
            canister.close()


def _figures(
    canister: LoneCanister, precision: str, upload: Spent, most: int, *, quick: bool
) -> Figures:
    setup = canister.set_up(precision)
    upgrade = canister.upgrade()
    bench = Bench(canister)
    decode: dict[str, int] = {}
    prefill: dict[str, Spent] = {}
    # Quick and whole runs begin alike: the pages that a request touches depend on those before it.
    for limit in sorted({min(QUICK, most), most}):
        decode |= {str(n): bench.decode(n) for n in bench.within(CONTEXTS, limit)}
        prefill |= {str(n): bench.complete(n, 1) for n in bench.within(PROMPTS, limit)}
    figures: Figures = {
        "decode": decode,
        "prefill": {n: spent.instructions for n, spent in prefill.items()},
        "upload": upload.instructions,
        "setup": setup.instructions,
        "upgrade": upgrade.instructions,
    }
    if not quick:
        if min(most, bench.n_ctx) > TOGETHER_AT:
            figures["together"] = {str(TOGETHER_AT): bench.decode_together(TOGETHER_AT)}
        figures["tokens_per_update"] = bench.tokens_per_update()
        if "complete_query" in METHODS:
            figures["tokens_per_query"] = bench.tokens_per_query()
    figures["pages"] = {
        "decode": bench.complete(1, 1).pages,
        "prefill": {n: spent.pages for n, spent in prefill.items()},
        "upload": upload.pages,
        "setup": setup.pages,
        "upgrade": upgrade.pages,
    }
    return figures


def grown(before: Any, now: Any, where: str = "", by: float = 0.01) -> list[str]:
    """The counts that are larger than before by more than `by`; tokens are better when larger.

    Page charges may grow by `FEW_PAGES` besides: where the allocator puts things is no one's doing.
    """
    if isinstance(before, dict):
        out: list[str] = []
        for key in before.keys() & now.keys():
            out += grown(before[key], now[key], f"{where} {key}".strip(), by)
        return sorted(out)
    if "tokens_per" in where:
        worse = now < before * (1 - by)
    else:
        worse = now > before * (1 + by) + (FEW_PAGES if where.startswith("pages") else 0)
    return [f"{where}: {before:,} before, {now:,} now"] if worse else []


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench engine")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help="write docs/performance.{json,md}")
    parser.add_argument("--shape", action="append", choices=shapes.NAMES)
    parser.add_argument("--precision", action="append", choices=shapes.PRECISIONS)
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep random weights here")
    options = parser.parse_args(arguments)
    if not shapes.WASM.is_file():
        parser.error("the canister is not built; run ./scripts/setup first")
    results: dict[str, dict[str, Figures]] = {}
    for shape in options.shape or shapes.NAMES:
        for precision, figures in measure(
            shape, options.precision or shapes.PRECISIONS, options.cache
        ):
            results.setdefault(shape, {})[precision] = figures
            print(f"measured {shape} in {precision}", file=sys.stderr)
            if options.write:
                _write(shape, precision, figures)
    print(json.dumps(results) if options.json else page.engine_tables(results))
    return 0


def _write(shape: str, precision: str, figures: Figures) -> None:
    """Into the result file and the page, at once, so that a stopped run loses nothing."""
    whole = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    whole.setdefault(shape, {})[precision] = figures
    ordered = {
        name: {p: whole[name][p] for p in shapes.PRECISIONS if p in whole[name]}
        for name in shapes.NAMES
        if name in whole
    }
    RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
    page.put("engine", page.engine_tables(ordered))
    page.put("scaling", scaling.table(ordered), page.SCALING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What rounding the weights changes in what a model says: int8 and int16 against f32.

    ./scripts/bench quality                   the smaller model in the box, on a scene of Hamlet
    ./scripts/bench quality --model FOLDER --text FILE
    ./scripts/bench quality --json | --write  as JSON; into docs/

Both models are fed the same tokens of the text, in contexts that start afresh. The engine runs
natively; its results are the canister's, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import page
import shapes

RESULTS = page.FOLDER / "performance-quality.json"
TEXT = shapes.ROOT / "tests" / "golden" / "held-out.txt"


def measure(model: Path, text: Path) -> dict[str, Any]:
    """Positions, agreement and perplexity by precision."""
    command = ["cargo", "run", "--quiet", "--release", "--locked", "-p", "icgpt-engine"]
    command += ["--example", "quality", "--", str(model.resolve()), str(text.resolve())]
    done = subprocess.run(command, cwd=shapes.ROOT / "canister", stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit("the engine's example `quality` failed; its words stand above")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def table(models: dict[str, Any]) -> str:
    """The figures of each model as a Markdown table."""
    rows = []
    for model, figures in models.items():
        exact = figures["f32"]["perplexity"]
        for name in ("f32", "int16", "int8"):
            found = figures[name]
            change = 100 * (found["perplexity"] / exact - 1)
            rows.append(
                [
                    f"{model}, {name}",
                    f"{100 * found['agreement']:.2f} % of {found['positions']:,}",
                    f"{found['perplexity']:.4f}",
                    f"{change:+.3f} %",
                ]
            )
    return page.table(["model", "same likeliest token", "perplexity", "change"], rows)


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench quality")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} and the page")
    parser.add_argument("--model", type=Path, default=shapes.DEMO, metavar="FOLDER")
    parser.add_argument("--text", type=Path, default=TEXT, metavar="FILE")
    options = parser.parse_args(arguments)
    figures = {options.model.resolve().name: measure(options.model, options.text)}
    if options.write:
        known = json.loads(RESULTS.read_bytes()) | figures
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        page.put("quality", table(known))
    print(json.dumps(figures) if options.json else table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

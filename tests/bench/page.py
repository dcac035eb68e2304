"""The tables of docs/performance.md and docs/scaling.md, made from the result files beside it.

A table stands between `<!-- NAME -->` and `<!-- end of NAME -->`; what is between is replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent.parent / "docs"
PAGE = FOLDER / "performance.md"
SCALING = FOLDER / "scaling.md"

TITLES = {
    "demo": "model in the box",
    "gpt2-124m": "GPT-2 124M",
    "gpt2-medium": "GPT-2 medium",
    "gpt2-large": "GPT-2 large",
    "gpt2-xl": "GPT-2 XL",
}
# Published figures of others, in millions (candle on a canister, GPT-2 124M in f32).
PEER = {
    "title": "published peer, GPT-2 124M, f32",
    "decode": {"1": 1120, "128": 1190, "512": 1550},
    "prefill": {"512": 196_000},
    "tokens_per_update": "31",
}

Row = list[str]
NOTHING = "\u2013"  # an empty cell


def put(name: str, text: str, path: Path | None = None) -> None:
    """Replace a table of the page, or of another one."""
    path = path or PAGE
    old = path.read_text()
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    new, count = re.subn(pattern, lambda _: f"{begin}{text}\n{end}", old, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{path} has {count} places named {name} instead of one")
    path.write_text(new)


def tell(options: argparse.Namespace, name: str, results: Path, found: dict[str, Any]) -> None:
    """Prints figures, one a line or as --json; with --write the page and its file have them too."""
    if options.write:
        results.write_text(json.dumps(found, indent=1) + "\n")
        rows = [[key.replace("_", " "), str(value)] for key, value in found.items()]
        put(name, table(["figure", "value"], rows))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for key, value in found.items():
        print(f"{key.replace('_', ' '):32} {value}")


def measured(
    words: str | None, name: str, results: Path, measure: Callable[[Path, int], dict[str, Any]]
) -> None:
    """The whole of a command: what is measured in a folder, in some rounds, and `tell` of it."""
    parser = argparse.ArgumentParser(description=words)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"write {results.name} and the page")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.rounds)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    tell(options, name, results, {**found, "rounds": options.rounds, "machine": machine})


def table(head: Row, rows: list[Row]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def millions(count: float) -> str:
    """Instructions in millions, with one decimal below a thousand."""
    value = count / 1e6
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def engine_tables(results: dict[str, dict[str, Any]]) -> str:
    """All of `scripts/bench engine`: per token, per prompt, and around them."""
    models = [
        (f"{TITLES.get(shape, shape)}, {precision}", figures)
        for shape, precisions in results.items()
        for precision, figures in precisions.items()
    ]
    return "\n\n".join(
        (
            _by_length("decode", "a token, M, at context", models),
            _by_length("prefill", "a prompt, M, of", models),
            _messages(models),
            _around(models),
        )
    )


def _by_length(kind: str, title: str, models: list[tuple[str, Any]]) -> str:
    lengths = sorted({int(n) for _, figures in models for n in figures[kind]})
    rows = []
    for name, figures in models:
        counts = figures[kind]
        cells = [millions(counts[str(n)]) if str(n) in counts else NOTHING for n in lengths]
        rows.append([name, *cells])
        for n, count in figures.get("together", {}).items() if kind == "decode" else ():
            cells = [millions(count) if str(length) == n else NOTHING for length in lengths]
            rows.append([f"{name}, eight jobs at once", *cells])
    peer: Any = PEER[kind]
    rows.append(
        [str(PEER["title"]), *(f"{peer[str(n)]:,}" if str(n) in peer else NOTHING for n in lengths)]
    )
    return table([title, *map(str, lengths)], rows)


def _messages(models: list[tuple[str, Any]]) -> str:
    rows = [
        [
            name,
            *(
                f"{figures[key]:,}" if key in figures else NOTHING
                for key in ("tokens_per_update", "tokens_per_query")
            ),
        ]
        for name, figures in models
        if "tokens_per_update" in figures
    ]
    rows.append([str(PEER["title"]), str(PEER["tokens_per_update"]), NOTHING])
    return table(["tokens in one message", "update", "query"], rows)


def _around(models: list[tuple[str, Any]]) -> str:
    """What comes once, each with its page charges after the plus."""
    rows = []
    for name, figures in models:
        pages = figures["pages"]
        row = [name, millions(pages["decode"])]
        row += [
            f"{millions(figures[key])} + {millions(pages[key])}"
            for key in ("upload", "setup", "upgrade")
        ]
        rows.append(row)
    return table(["M, and page charges", "pages of one token", "upload", "set-up", "upgrade"], rows)

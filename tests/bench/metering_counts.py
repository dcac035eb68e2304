"""Our instruction counts against those that other projects committed: `./scripts/bench metering`.

    ./scripts/bench metering FOLDER...             every suite of canbench below these folders
    ./scripts/bench metering FOLDER --only vec     benchmarks with `vec` in their name
    ./scripts/bench metering FOLDER --at-most 2e9  those of no more instructions, to save time
    ./scripts/bench metering FOLDER --release 2026-07

Check a repository out at the commit that wrote its results and build its modules with the toolchain
that it pins: another compiler makes other code. The exit code is 1 when a count differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import page
from canbench_suite import Comparison, Suite, SuiteError, compare, find, read, run

from icgpt.replica import weights

RESULTS = page.FOLDER / "performance-metering.json"
COUNTED = ("equal", "benchmarks", "left_out")
SHOWN = 3  # differences of one benchmark


def check(
    suite: Suite, release: weights.Release, wanted: Callable[[str], bool]
) -> Iterator[Comparison]:
    """Run a suite and compare; a benchmark that is on one side alone differs."""
    committed = {name: result for name, result in suite.results.items() if wanted(name)}
    with tempfile.TemporaryDirectory() as folder:
        for name, measured in run(suite, release, Path(folder), wanted):
            yield compare(name, committed.pop(name, None), measured)
    for name, result in committed.items():
        yield compare(name, result, None)


def choice(suite: Suite, only: str, most: float) -> Callable[[str], bool]:
    """Which benchmarks are to run: named so, and not committed with more instructions."""

    def wanted(name: str) -> bool:
        total = suite.results.get(name, {"": {}})[""]
        return only in name and total.get("instructions", 0) <= most

    return wanted


def line(comparison: Comparison) -> str:
    """A benchmark as a line, and a line for each figure that differs."""
    count = "missing" if comparison.here is None else f"{comparison.here:,}"
    word = "equal" if comparison.equal else "DIFFERS"
    lines = [f"  {comparison.benchmark:56} {count:>18}  {word}"]
    for item in comparison.differences[:SHOWN]:
        where = f"{item.field} of {item.scope}" if item.scope else item.field
        lines.append(f"    {where}: committed {item.committed}, here {item.here}")
    if len(comparison.differences) > SHOWN:
        lines.append(f"    and {len(comparison.differences) - SHOWN} more")
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> str:
    """What was found, a row for each suite."""
    cells = [
        [
            row["repository"],
            row["commit"][:12],
            row["suite"],
            row["release"],
            f"{row['equal']} of {row['benchmarks']}",
            str(row["left_out"]),
        ]
        for row in rows
    ]
    equal, all_, left = (sum(row[key] for row in rows) for key in COUNTED)
    cells.append(["all", "", "", "", f"{equal} of {all_}", str(left)])
    head = ["repository", "at commit", "suite", "pages as in", "equal", "left out"]
    return page.table(head, cells)


def commit_of(folder: Path) -> str:
    """The commit that is checked out in a folder."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SuiteError(f"{folder} is no checkout of a repository: {done.stderr.strip()}")
    return done.stdout.strip()


def write(found: list[dict[str, Any]], repository: str) -> None:
    """Put what was found into the page, in place of what it said of the same suites."""
    old = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    new = [{"repository": repository, **row} for row in found]
    known = {(row["repository"], row["suite"]): row for row in [*old, *new]}
    rows = [known[key] for key in sorted(known)]
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    page.put("metering", table(rows))


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench metering",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--only", default="", metavar="TEXT", help="benchmarks named so")
    parser.add_argument("--at-most", type=float, default=float("inf"), metavar="INSTRUCTIONS")
    parser.add_argument(
        "--release",
        choices=weights.RELEASES,
        default=weights.BEFORE.name,
        help="how touched pages were charged when the results were written (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", metavar="REPOSITORY", help=f"write {RESULTS.name} and the page")
    options = parser.parse_args(arguments)
    release, most = weights.RELEASES[options.release], options.at_most
    talk = sys.stderr if options.json else sys.stdout
    found: list[dict[str, Any]] = []
    try:
        suites = [read(path) for folder in options.folders for path in find(folder)]
        if not suites:
            raise SuiteError("no canbench.yml with results beside it is in these folders")
        for suite in suites:
            print(suite.name, file=talk, flush=True)
            comparisons: list[Comparison] = []
            chosen = choice(suite, options.only, most)
            for comparison in check(suite, release, chosen):
                comparisons.append(comparison)
                print(line(comparison), file=talk, flush=True)
            found.append(
                {
                    "commit": commit_of(suite.folder),
                    "suite": suite.name,
                    "release": release.name,
                    "benchmarks": len(comparisons),
                    "equal": sum(comparison.equal for comparison in comparisons),
                    "left_out": sum(not chosen(name) for name in suite.results),
                    "compared": [asdict(comparison) for comparison in comparisons],
                }
            )
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.write:
        short = [{k: v for k, v in row.items() if k != "compared"} for row in found]
        write(short, options.write)
    equal, total, left = (sum(row[key] for row in found) for key in COUNTED)
    if options.json:
        sums = dict(zip(COUNTED, (equal, total, left), strict=True))
        print(json.dumps({**sums, "suites": found}, indent=1))
    else:
        print(f"{equal} of {total} benchmarks are equal to the instruction; {left} were left out")
    return 0 if equal == total and total else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

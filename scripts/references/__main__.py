"""Writes the pages of docs/reference/, or says which of them are stale. See scripts/reference."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # this checkout's package, wherever another may be installed

import candid_page  # noqa: E402
import cli_page  # noqa: E402
import python_page  # noqa: E402

PAGES = {
    "cli.md": cli_page.page,
    "python.md": python_page.page,
    "candid.md": candid_page.page,
}


def main(arguments: list[str]) -> int:
    """Writes or checks all pages; the exit code."""
    folder = ROOT / "docs" / "reference"
    folder.mkdir(exist_ok=True)
    stale = 0
    for name, make in PAGES.items():
        path, text = folder / name, make()
        if path.is_file() and path.read_text() == text:
            continue
        if arguments == ["--check"]:
            sys.stderr.write(f"docs/reference/{name} is stale: run ./scripts/reference\n")
            stale = 1
        else:
            path.write_text(text)
            sys.stderr.write(f"docs/reference/{name} is written\n")
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

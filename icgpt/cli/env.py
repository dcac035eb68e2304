"""`icgpt env`: what a bug report needs to say of this installation, and nothing that is secret."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click

from icgpt import __version__
from icgpt.cli.common import answer, at_terminal, json_option
from icgpt.cli.help import Command
from icgpt.errors import IcgptError

PACKAGES: Final = ("wasmtime", "ic-py", "cbor2", "cryptography", "py-arkworks-bls12381")
PACKAGES_MORE: Final = ("numpy", "click", "requests", "urllib3", "tokenizers", "torch")


@click.command(cls=Command, examples=["icgpt env", "icgpt env --json"])
@json_option
def env(as_json: bool) -> None:
    """Describe this installation, for bug reports.

    Versions, paths and the state of the local network. Keys and texts are not shown, and the home
    folder is written ~.
    """
    from icgpt import deploy, project
    from icgpt.cli.settings import file_path
    from icgpt.identity import config_dir, default_path
    from icgpt.network import default_state_dir

    home = project.find()
    value: dict[str, Any] = {
        "icgpt": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "package": _short(Path(__file__).parent.parent),
        "module": _told(lambda: _short(deploy.find_wasm(home))),
        "project": None if home.root is None else _short(home.root),
        "config": _short(config_dir()),
        "config_file": _there(file_path()),
        "identity": _there(default_path()),
        "state": _short(default_state_dir()),
        "network": _told(_network),
        "variables": sorted(name for name in os.environ if name.startswith("ICGPT_")),
        "terminal": [at_terminal(one) for one in (sys.stdin, sys.stdout)],
        "versions": {name: _version(name) for name in (*PACKAGES, *PACKAGES_MORE)},
    }
    lines = [f"{name:<12}{_word(one)}" for name, one in value.items() if name != "versions"]
    lines += [f"  {name:<24}{one or 'not installed'}" for name, one in value["versions"].items()]
    answer(as_json, value, "\n".join(lines))


def _network() -> str:
    from icgpt import network

    info = network.status()
    return "not running" if info is None else f"running at {info.url}"


def _told(ask: Any) -> str:
    """What was found out, or why it was not: a report is wanted most where something is broken."""
    try:
        return str(ask())
    except (IcgptError, OSError) as error:
        return f"error: {error}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _there(path: Path) -> str:
    return _short(path) + ("" if path.exists() else " (there is none)")


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)

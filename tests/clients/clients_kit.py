"""Where other people's clients are, and projects for them to work in."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from model_kit import ROOT

MODULES = ROOT / ".clients" / "node_modules"
PYTHON = ROOT / ".clients" / "python"


def find_icp() -> str | None:
    """The icp command line."""
    own = sorted((MODULES / "@icp-sdk").glob("icp-cli-*/bin/icp"))
    return str(own[0]) if own else shutil.which("icp")


def has_node(package: str) -> bool:
    """Tell whether Node and a package of it are installed."""
    return shutil.which("node") is not None and (MODULES / package).is_dir()


def own_home(folder: Path) -> dict[str, str]:
    """Variables that keep what a program remembers of its user in a folder."""
    places = {"DATA": ".local/share", "CONFIG": ".config", "CACHE": ".cache"}
    return {
        "HOME": str(folder),
        **{f"XDG_{kind}_HOME": str(folder / place) for kind, place in places.items()},
    }


@dataclass
class Icp:
    """The icp command line in a project folder, with a home of its own."""

    folder: Path
    launcher: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a call gets."""
        more = own_home(self.folder) | {"DO_NOT_TRACK": "1", "RUST_BACKTRACE": "0"}
        if self.launcher is not None:
            more["ICP_CLI_NETWORK_LAUNCHER_PATH"] = str(self.launcher)
        return {**os.environ, **more, "PYTHONPATH": str(ROOT)}

    def run(self, *arguments: str, code: int = 0) -> str:
        """Call it; its standard output."""
        done = subprocess.run(
            [str(find_icp()), *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout


def write_project(folder: Path, **replaced: str) -> None:
    """Write our icp.yaml into a folder, with the built canisters instead of their build."""
    text = (ROOT / "icp.yaml").read_text()
    changes = {
        "./scripts/build-canister": "echo",
        "cp canister/build": f"cp {shlex.quote(str(ROOT / 'canister' / 'build'))}",
        **replaced,
    }
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "icp.yaml").write_text(text)

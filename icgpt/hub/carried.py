"""What a folder that runs by itself carries: this package, a model, and what has to be installed.

The package goes with it so that the folder runs the code that it was tried with, and takes nothing
by this name from a registry.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Final

import icgpt
from icgpt.checkpoint import Checkpoint
from icgpt.checkpoint.model_files import FILE_NAMES
from icgpt.engine.module import FILE_NAME, find_engine
from icgpt.errors import IcgptError

_LEFT_OUT: Final = shutil.ignore_patterns("__pycache__", "models", "_canister")
_EXTRA: Final = re.compile(r"""extra == ['"](\w+)['"]""")


def carry_package(folder: Path) -> None:
    """Puts this package into a folder, with the engine and without the built-in models."""
    engine = find_engine()
    licence = metadata.distribution("icgpt").read_text("licenses/LICENSE")
    place = folder / "icgpt"
    shutil.copytree(Path(icgpt.__file__).resolve().parent, place, ignore=_LEFT_OUT)
    (place / "_canister").mkdir()
    shutil.copyfile(engine, place / "_canister" / FILE_NAME)
    if licence is not None:
        (place / "LICENSE").write_text(licence)


def carry_model(checkpoint: Checkpoint, folder: Path) -> None:
    """Puts a model's files into a folder, which is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, file in checkpoint.files.items():
        shutil.copyfile(file.path, folder / FILE_NAMES[kind])


def requirements(extras: Collection[str]) -> list[str]:
    """What this package needs, with some of its extras."""
    try:
        found = metadata.requires("icgpt") or []
    except metadata.PackageNotFoundError as error:
        raise IcgptError(
            "this package is not installed, so that nobody knows what it needs",
            "Run ./scripts/setup, or install the wheel.",
        ) from error
    wanted = []
    for line in found:
        requirement, _, marker = line.partition(";")
        extra = _EXTRA.search(marker)
        if extra is None or extra[1] in extras:
            wanted.append(requirement.strip())
    return sorted(set(wanted))

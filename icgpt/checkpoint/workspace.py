"""Folders for what is made of a source and needed only as long as it is used.

They lie on disk in the platform's cache folder ($ICGPT_CACHE_DIR moves it), as a temporary folder
is often held in memory, and end with the checkpoint that they were made for. What a killed process
left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from icgpt.errors import CheckpointError

_PREFIX: Final = "source-"


def cache_dir() -> Path:
    """Where things are kept that can be made again."""
    if moved := os.environ.get("ICGPT_CACHE_DIR"):
        return Path(moved)
    import platformdirs

    return Path(platformdirs.user_cache_dir("icgpt"))


def new_workspace() -> tempfile.TemporaryDirectory[str]:
    """A folder that is removed when nobody holds it any more."""
    place = cache_dir()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_leftovers(place)
        return tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", dir=place)
    except OSError as error:
        raise CheckpointError(
            f"can't make a folder in {place}: {error.strerror}",
            "Make room there, or set ICGPT_CACHE_DIR to another folder.",
        ) from error


def _remove_leftovers(place: Path) -> None:
    for folder in place.glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).split("-", 1)[0]
        if owner.isdigit() and not _runs(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    with contextlib.suppress(PermissionError):
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True

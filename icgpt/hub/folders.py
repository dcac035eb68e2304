"""New folders that are there whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from icgpt.hub.errors import FolderError


def check_free(folder: Path) -> None:
    """FolderError for a folder that has something in it."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise FolderError(f"{folder} is there already")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `folder` when all went well."""
    check_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            yield made
            made.replace(folder)
    except OSError as error:
        raise FolderError(f"{folder} can't be written: {error.strerror or error}") from error

"""Files that are either whole or absent: written beside their target, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes, mode: int = 0o644, *, sync: bool = True) -> None:
    """Replace `path` in one step, so that a crash never leaves half a file.

    `sync` waits for the disk, so that the same holds for a power failure.
    """
    with replacing(path, mode, sync=sync) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, mode: int = 0o644, *, sync: bool = True) -> Iterator[BinaryIO]:
    """The same for what is written piece by piece: `path` is replaced when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.chmod(name, mode)  # mkstemp's 0600 would lock other users out of a shared folder
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

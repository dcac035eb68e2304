"""Checkpoints converted before they are uploaded: packed by the engine in this process, and kept.

A packed file depends on the checkpoint, its config.json, the precision and the engine's module, so
their hashes name it in the user's cache folder. It is used again only if it still has its own
SHA-256, and the least recently used make way when all together are too large.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from icgpt.checkpoint import Checkpoint
from icgpt.checkpoint.workspace import cache_dir
from icgpt.engine import pack
from icgpt.engine.module import find_engine
from icgpt.errors import IcgptError
from icgpt.sending import Outgoing, outgoing

KEPT_BYTES: Final = 4 << 30  # of packed files; the newest is always kept
_NAME: Final = ".packed"


def converted(
    checkpoint: Checkpoint,
    hashes: dict[str, bytes],
    precision: str,
    report: Callable[[int, int], None],
) -> Outgoing:
    """A checkpoint's packed file, ready to be sent.

    Args:
        checkpoint: the model.
        hashes: the SHA-256 of its safetensors file and of config.json.
        precision: "f32", "int8" or "int16".
        report: told how many bytes of the weights are done, and how many there are.
    """
    folder = cache_folder()
    engine = hashlib.sha256(find_engine().read_bytes()).digest()
    parts = (hashes["safetensors"], hashes["config"], precision.encode(), engine)
    key = hashlib.sha256(b"".join(parts)).hexdigest()[:40]
    for path in folder.glob(f"{key}-*{_NAME}"):
        found = outgoing("packed", path)
        if path.name == _file_name(key, found.sha256):
            os.utime(path)
            return found
        path.unlink()
    made = pack(checkpoint, folder / f"{key}.new", precision, report)
    path = made.path.rename(folder / _file_name(key, made.sha256))
    _make_room(folder, path)
    return outgoing("packed", path)


def cache_folder() -> Path:
    """Where packed files are kept."""
    folder = cache_dir() / "packed"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise IcgptError(
            f"can't make {folder}: {error.strerror}", "Name another folder with $ICGPT_CACHE_DIR."
        ) from error
    return folder


def _file_name(key: str, sha256: bytes) -> str:
    return f"{key}-{sha256.hex()}{_NAME}"


def _make_room(folder: Path, newest: Path) -> None:
    """Removes what was used longest ago, while all together are too large."""
    left = KEPT_BYTES - newest.stat().st_size
    others = [(path.stat(), path) for path in folder.glob(f"*{_NAME}") if path != newest]
    for found, path in sorted(others, key=lambda other: other[0].st_mtime, reverse=True):
        left -= found.st_size
        if left < 0:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

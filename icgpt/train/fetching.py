"""Texts from elsewhere: fetched once, checked against a known SHA-256, kept in the cache folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from icgpt.checkpoint.workspace import cache_dir
from icgpt.files import write_atomically
from icgpt.train.errors import DataError

USE_A_FILE: Final = "Name a text file instead: --data FILE"


def kept(
    name: str, sha256: str, said: str, fetch: Callable[[], bytes], say: Callable[[str], None]
) -> bytes:
    """A file by its name in the cache folder; where it is not there yet, or damaged, fetched."""
    place = cache_dir() / name
    try:
        content = place.read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() == sha256:
        return content
    say(said)
    content = fetch()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(f"What was fetched as {name} is another file ({found})", USE_A_FILE)
    try:
        write_atomically(place, content)
    except OSError as error:
        say(f"not kept for the next time: {error}")
    return content

"""The training text: where it comes from, its symbols, and how it is split.

A character model's vocabulary is the sorted set of the text's characters (by code point, as
nanoGPT does), so an id is a character's rank. The first 90 % train, the rest validates:
1,003,854 and 111,540 of tiny Shakespeare's 1,115,394 characters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests
from numpy.typing import NDArray
from platformdirs import user_cache_path

from icgpt.files import write_atomically
from icgpt.train.errors import DataError

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SHAKESPEARE_BYTES = 1_115_394
MAX_FILE_BYTES = 256 << 20  # ids take 8 bytes a character, so this is 2 GiB of memory
USE_A_FILE = "Name a text file instead: --data FILE"


@dataclass(frozen=True)
class Corpus:
    """A text as ids, split in two. `alphabet[i]` is the character with id `i`."""

    alphabet: str
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    sha256: str


def shakespeare(say: Callable[[str], None]) -> bytes:
    """Tiny Shakespeare from the cache folder; the first time, downloaded and checked."""
    place = user_cache_path("icgpt") / "tinyshakespeare.txt"
    try:
        cached = place.read_bytes()
    except OSError:
        cached = b""
    if hashlib.sha256(cached).hexdigest() == SHAKESPEARE_SHA256:
        return cached
    say(f"downloading tiny Shakespeare from {SHAKESPEARE_URL}")
    content = _download(SHAKESPEARE_URL)
    found = hashlib.sha256(content).hexdigest()
    if found != SHAKESPEARE_SHA256:
        raise DataError(f"What came from {SHAKESPEARE_URL} is another text ({found})", USE_A_FILE)
    try:
        write_atomically(place, content)
    except OSError as error:
        say(f"not kept for the next time: {error}")
    return content


def _download(url: str) -> bytes:
    """Fetch no more than tiny Shakespeare has; a longer answer can't be the right one."""
    content = b""
    try:
        with requests.get(url, timeout=30, stream=True) as response:
            response.raise_for_status()
            for piece in response.iter_content(1 << 16):
                content += piece
                if len(content) > SHAKESPEARE_BYTES:
                    break
    except (requests.RequestException, OSError) as error:
        why = type(error).__name__
        raise DataError(f"Tiny Shakespeare could not be downloaded ({why})", USE_A_FILE) from error
    return content


def read_file(path: Path) -> bytes:
    """The bytes of a text file that the user named."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB", "Use a part.")
        return path.read_bytes()
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(f"{path} cannot be read: {why}", "Check what --data names.") from error


def prepare(content: bytes, n_ctx: int) -> Corpus:
    """Decode, number the characters, split; each part must fill at least one window."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"The text is not UTF-8 (at byte {error.start})", "Convert it: iconv -t utf-8"
        ) from error
    # Code points as numbers: numpy sorts and ranks them without a loop.
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    alphabet, ids = np.unique(points, return_inverse=True)
    cut = len(ids) * 9 // 10
    train, validation = ids[:cut].astype(np.int64), ids[cut:].astype(np.int64)
    if len(validation) < n_ctx + 1:
        raise DataError(
            f"The text is too short: {len(ids):,} characters",
            f"Its last tenth must fill a context of {n_ctx}: "
            f"give at least {10 * (n_ctx + 1):,} characters.",
        )
    return Corpus(
        alphabet="".join(map(chr, alphabet)),
        train=train,
        validation=validation,
        sha256=hashlib.sha256(content).hexdigest(),
    )

"""A model's files, once they have the form that a canister takes, checked against each other."""

from __future__ import annotations

import hashlib
import math
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from icgpt.checkpoint.config import MAX_CONFIG_BYTES, Config, check_tensors, parse_config
from icgpt.checkpoint.safetensors import READABLE, check_finite, read_header
from icgpt.checkpoint.tokenizer import MAX_TOKENIZER_BYTES, check_tokenizer
from icgpt.errors import CheckpointError

FILE_NAMES: Final = {
    "safetensors": "model.safetensors",
    "config": "config.json",
    "tokenizer": "tokenizer.json",
}
_HASH_BYTES: Final = 4 << 20


@dataclass(frozen=True)
class SourceFile:
    """A file that is to be sent."""

    kind: str
    """"safetensors", "config" or "tokenizer"."""
    path: Path
    length: int

    def sha256(self, end: int | None = None) -> bytes:
        """SHA-256 of the file, or of its first `end` bytes."""
        return hash_file(self.path, self.length if end is None else end).digest()


@dataclass(frozen=True)
class Checkpoint:
    """A model that was found sound."""

    name: str
    config: Config
    files: dict[str, SourceFile]
    parameters: int
    workspace: Any = field(default=None, repr=False, compare=False)
    """Holds files that were made for this checkpoint; they go when it goes or is closed."""

    @property
    def length(self) -> int:
        """Bytes of all files together."""
        return sum(file.length for file in self.files.values())

    def tokenizer(self) -> SourceFile:
        """Its tokenizer.json; CheckpointError where it has none, as texts need one."""
        if "tokenizer" not in self.files:
            raise CheckpointError(
                f"{self.name} has no tokenizer.json, and texts need one",
                "Put the tokenizer.json that belongs to the model beside its weights.",
            )
        return self.files["tokenizer"]

    def close(self) -> None:
        """Removes the files that were made for this checkpoint; it is of no use any more."""
        if self.workspace is not None:
            self.workspace.cleanup()


def hash_file(path: Path, end: int) -> hashlib._Hash:
    """The running SHA-256 after the first `end` bytes of a file."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            left = end
            while left:
                piece = file.read(min(left, _HASH_BYTES))
                if not piece:
                    raise CheckpointError(f"{path} grew shorter while it was read", "Try again.")
                digest.update(piece)
                left -= len(piece)
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}", READABLE) from error
    return digest


def found_file(kind: str, path: Path) -> SourceFile | None:
    """A file of a model; None when there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}", READABLE) from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path} is no file", READABLE)
    return SourceFile(kind, path, found.st_size)


def read_small(file: SourceFile, limit: int) -> bytes:
    """The bytes of a file that is known to be small."""
    if file.length > limit:
        raise CheckpointError(
            f"{file.path} has {file.length:,} bytes; at most {limit:,} are expected",
            f"Use the {file.path.name} that belongs to the model.",
        )
    try:
        return file.path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"can't read {file.path}: {error.strerror}", READABLE) from error


def checked(
    name: str,
    weights: SourceFile,
    config_file: SourceFile,
    tokenizer: SourceFile | None,
    workspace: Any = None,
) -> Checkpoint:
    """Checks a model's files against each other."""
    config = parse_config(read_small(config_file, MAX_CONFIG_BYTES))
    used = check_tensors(config, read_header(weights.path))
    files = {"safetensors": weights, "config": config_file}
    if tokenizer is not None:
        check_tokenizer(read_small(tokenizer, MAX_TOKENIZER_BYTES), config.vocab_size)
        files["tokenizer"] = tokenizer
    check_finite(weights.path, used)
    parameters = sum(math.prod(one.shape) for one in used)
    return Checkpoint(name, config, files, parameters, workspace)

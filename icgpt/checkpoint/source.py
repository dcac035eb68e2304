"""Where a model comes from: a folder, or the name of one that is built in.

A source holds model.safetensors, config.json and, unless the model is used by token ids alone,
tokenizer.json. Files are never held in memory whole, except the two small ones while they are
checked.
"""

from __future__ import annotations

import hashlib
import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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

    @property
    def length(self) -> int:
        """Bytes of all files together."""
        return sum(file.length for file in self.files.values())


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


def built_in() -> list[str]:
    """The names of the models that come with the package."""
    root = _models_dir()
    if not root.is_dir():
        return []
    return sorted(p.name for p in root.iterdir() if (p / FILE_NAMES["safetensors"]).is_file())


def _models_dir() -> Path:
    return Path(__file__).resolve().parent.parent / "models"


def open_checkpoint(source: str) -> Checkpoint:
    """Finds and checks a model.

    Args:
        source: a folder, or a built-in name. A folder of that name in the current one goes first
            only when it is written as a path (./name).
    """
    names = built_in()
    if source in names:
        return check_folder(_models_dir() / source, source)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "doesn't exist"
        raise CheckpointError(
            f"{source} {what}",
            "Name a folder with model.safetensors, config.json and tokenizer.json"
            + (f", or a built-in model: {', '.join(names)}." if names else "."),
        )
    return check_folder(folder, folder.resolve().name)


def check_folder(folder: Path, name: str) -> Checkpoint:
    """Checks the files of a folder against each other."""
    files: dict[str, SourceFile] = {}
    for kind, file_name in FILE_NAMES.items():
        path = folder / file_name
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise CheckpointError(f"{path} is no file", READABLE)
            files[kind] = SourceFile(kind, path, found.st_size)
        except FileNotFoundError as error:
            if kind != "tokenizer":
                raise CheckpointError(
                    f"{folder} has no {file_name}",
                    "A model is a folder with model.safetensors, config.json and, unless it is "
                    "used by token ids alone, tokenizer.json.",
                ) from error
        except OSError as error:
            raise CheckpointError(f"can't read {path}: {error.strerror}", READABLE) from error
    config = parse_config(_small(files["config"], MAX_CONFIG_BYTES))
    weights = files["safetensors"].path
    used = check_tensors(config, read_header(weights))
    if "tokenizer" in files:
        check_tokenizer(_small(files["tokenizer"], MAX_TOKENIZER_BYTES), config.vocab_size)
    check_finite(weights, used)
    return Checkpoint(name, config, files, sum(math.prod(one.shape) for one in used))


def _small(file: SourceFile, limit: int) -> bytes:
    if file.length > limit:
        raise CheckpointError(
            f"{file.path} has {file.length:,} bytes; at most {limit:,} are expected",
            f"Use the {file.path.name} that belongs to the model.",
        )
    try:
        return file.path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"can't read {file.path}: {error.strerror}", READABLE) from error

"""What of a model's folder goes to the hub: the model, and what is told about it. Nothing else.

The list is one of names that are let through, so that keys, optimiser states and drafts that lie in
the same folder stay there.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from icgpt.checkpoint import Checkpoint
from icgpt.checkpoint.model_files import FILE_NAMES

MODEL_CARD: Final = "README.md"
BESIDE: Final = (
    MODEL_CARD,
    "LICENSE*",
    "vocabulary.json",
    "model_args.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "log/*.txt",
    "log/*.jsonl",
    "figure/*.png",
    "figure/*.svg",
)
MAX_BESIDE_BYTES: Final = 50 << 20


@dataclass(frozen=True)
class Sent:
    """A file, and its name on the hub."""

    name: str
    path: Path
    length: int


@dataclass(frozen=True)
class Chosen:
    """What is sent, and the names of what stays."""

    files: list[Sent]
    left_out: list[str]

    @property
    def length(self) -> int:
        """Bytes of all files together."""
        return sum(one.length for one in self.files)


def choose(checkpoint: Checkpoint, source: str) -> Chosen:
    """What is sent of a model.

    Args:
        checkpoint: the model, as it was opened.
        source: what it was opened as; of a folder, what is told about the model goes too.
    """
    files = [
        Sent(FILE_NAMES[kind], file.path, file.length) for kind, file in checkpoint.files.items()
    ]
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = checkpoint.files["config"].path.parent
    left_out = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name in FILE_NAMES.values():
            continue
        if _goes(name, path):
            files.append(Sent(name, path, path.stat().st_size))
        else:
            left_out.append(name)
    return Chosen(files, left_out)


def all_of(folder: Path) -> Chosen:
    """Every file of a folder that was written for the hub."""
    files = [
        Sent(path.relative_to(folder).as_posix(), path, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return Chosen(files, [])


def _goes(name: str, path: Path) -> bool:
    # A link may lead to anything on this machine.
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BESIDE_BYTES:
        return False
    return any(fnmatchcase(name, one) and name.count("/") == one.count("/") for one in BESIDE)

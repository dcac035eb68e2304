"""Files of torch.save, read without torch: zip archives, and what came before torch 1.6.

A zip archive holds NAME/data.pkl, whose tensors are views of the numbers in NAME/data/KEY, stored
as they are. The older form is one stream: three small pickles (magic number, protocol, platform),
the pickle of the object, the list of storage keys, then for each its length and its numbers.
Nothing is run (see `icgpt.checkpoint.pickles`); numbers are mapped, not held in memory.
"""

from __future__ import annotations

import io
import math
import mmap
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from icgpt.checkpoint.pickles import PickledTensor, PickleError, Storage, read_pickle
from icgpt.checkpoint.safetensors import MAX_DIMENSIONS, READABLE
from icgpt.errors import CheckpointError, quoted

MAX_PICKLE_BYTES: Final = 16 << 20
MAX_ENTRIES: Final = 100_000
_LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PICKLE: Final = "/data.pkl"
_LOCAL_HEADER_BYTES: Final = 30  # of an entry, before its name and extra field
_AGAIN: Final = "Save the model again, as torch.save(model.state_dict(), FILE)."
# numpy has no bfloat16: its bits are carried as they are.
_NUMBERS: Final = {
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
    "float64": "<f8",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "i1",
    "uint8": "u1",
    "bool": "?",
}


@dataclass(frozen=True)
class TorchFile:
    """What torch.save wrote: the object, and where its storages' numbers are."""

    path: Path
    content: Any
    places: dict[str, tuple[int, int]]
    """First byte and number of bytes of each storage."""

    def array(self, tensor: PickledTensor) -> NDArray[Any]:
        """A tensor's numbers, mapped from the file; of bfloat16 the bits as integers."""
        kind = _NUMBERS.get(tensor.dtype)
        if kind is None:
            raise PickleError(f"{self.path.name}: tensors of type {quoted(tensor.dtype)}", _AGAIN)
        width = np.dtype(kind).itemsize
        start, size = self.places.get(tensor.storage.key, (0, 0))
        if len(tensor.shape) > MAX_DIMENSIONS or 0 in tensor.shape:
            raise PickleError(f"{self.path.name}: a tensor of an odd shape", _AGAIN)
        steps = zip(tensor.shape, tensor.stride, strict=True)
        last = tensor.offset + sum((count - 1) * stride for count, stride in steps)
        # A stride of 0 can make much of little; no weights are like that.
        if max(last + 1, math.prod(tensor.shape)) * width > size:
            raise PickleError(f"{self.path.name}: a tensor reaches beyond its numbers", _AGAIN)
        try:
            numbers = np.memmap(self.path, kind, "r", start, (size // width,))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"can't read {self.path}: {error}", READABLE) from error
        strides = [width * stride for stride in tensor.stride]
        view = numbers[tensor.offset :]
        return np.lib.stride_tricks.as_strided(view, tensor.shape, strides, writeable=False)


def read_torch_file(path: Path) -> TorchFile:
    """Reads what torch.save wrote; CheckpointError when it is something else."""
    try:
        with path.open("rb") as file:
            lead = file.read(64)
            if lead.startswith(b"PK\x03\x04"):
                return _read_zip(path, file)
            if lead.startswith(b"\x80"):
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    return _read_stream(path, data)
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}", READABLE) from error
    if lead.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path.name} is a pointer of Git LFS, not the file itself",
            "Fetch it with `git lfs pull`, or name the model by its Hugging Face id.",
        )
    raise CheckpointError(f"{path.name} is no file of torch.save", _AGAIN)


# --- Zip archives


def _read_zip(path: Path, file: Any) -> TorchFile:
    try:
        archive = zipfile.ZipFile(file)
        entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise PickleError(f"{path.name} is cut off or damaged: {error}", _CUT_OFF) from error
    if len(entries) > MAX_ENTRIES:
        raise PickleError(f"{path.name} has {len(entries):,} entries", _AGAIN)
    found = (e.filename for e in entries if e.filename.endswith(_PICKLE))
    root = next((name.removesuffix(_PICKLE) for name in found), None)
    if root is None:
        kind = "a TorchScript archive" if _has(entries, "/constants.pkl") else "an archive"
        raise CheckpointError(f"{path.name} is {kind}, not a state dict", _AGAIN)
    size = path.stat().st_size
    places: dict[str, tuple[int, int]] = {}
    pickle = b""
    for entry in entries:
        name = entry.filename.removeprefix(root)
        if name == _PICKLE:
            pickle = _small(archive, entry, path)
        elif name == "/byteorder" and _small(archive, entry, path) != b"little":
            raise CheckpointError(f"{path.name} was saved on a big-endian machine", _AGAIN)
        elif name.startswith("/data/"):
            places[name.removeprefix("/data/")] = _place(file, entry, path, size)
    return TorchFile(path, read_pickle(pickle), places)


_CUT_OFF: Final = "Copy or download it again."


def _has(entries: list[zipfile.ZipInfo], end: str) -> bool:
    return any(entry.filename.endswith(end) for entry in entries)


def _small(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bytes:
    if entry.file_size > MAX_PICKLE_BYTES:
        raise PickleError(f"{path.name}: its pickle has {entry.file_size:,} bytes", _AGAIN)
    try:
        with archive.open(entry) as part:
            data = part.read(MAX_PICKLE_BYTES + 1)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise PickleError(f"{path.name} is damaged: {error}", _CUT_OFF) from error
    if len(data) > MAX_PICKLE_BYTES:
        raise PickleError(f"{path.name}: its pickle is larger than it says", _AGAIN)
    return data


def _place(file: Any, entry: zipfile.ZipInfo, path: Path, size: int) -> tuple[int, int]:
    """Where an entry's bytes lie in the file."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise PickleError(f"{path.name}: its numbers are packed, as torch.save never does", _AGAIN)
    file.seek(entry.header_offset)
    head = file.read(_LOCAL_HEADER_BYTES)
    if len(head) < _LOCAL_HEADER_BYTES or not head.startswith(b"PK\x03\x04"):
        raise PickleError(f"{path.name} is damaged: an entry lies elsewhere", _CUT_OFF)
    lengths = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    start = int(entry.header_offset) + _LOCAL_HEADER_BYTES + lengths
    if start + entry.file_size > size:
        raise PickleError(f"{path.name} is cut off", _CUT_OFF)
    return start, entry.file_size


# --- The older form


def _read_stream(path: Path, data: mmap.mmap) -> TorchFile:
    if read_pickle(_Head(data)) != _LEGACY_MAGIC:
        raise CheckpointError(
            f"{path.name} is a plain pickle, not a file of torch.save",
            "Save the model with torch.save(model.state_dict(), FILE), or with save_pretrained.",
        )
    for _ in ("protocol", "platform"):
        read_pickle(_Head(data))
    storages: dict[str, Storage] = {}
    content = read_pickle(_Head(data), storages)
    keys = read_pickle(_Head(data))
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleError(f"{path.name}: its list of storages is damaged", _AGAIN)
    places = {}
    for key in keys:
        if key not in storages or storages[key].dtype not in _NUMBERS:
            raise PickleError(f"{path.name}: a storage that nothing is made of", _AGAIN)
        width = np.dtype(_NUMBERS[storages[key].dtype]).itemsize
        length = int.from_bytes(data.read(8), "little") * width
        places[key] = (data.tell(), length)
        if data.tell() + length > len(data):
            raise PickleError(f"{path.name} is cut off", _CUT_OFF)
        data.seek(length, io.SEEK_CUR)
    return TorchFile(path, content, places)


class _Head:
    """A file as a pickle's reader sees it: not beyond what a pickle may have."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.left = MAX_PICKLE_BYTES

    def tell(self) -> int:
        return self.data.tell()

    def read(self, count: int) -> bytes:
        return self._taken(self.data.read(max(0, min(count, self.left))))

    def readline(self) -> bytes:
        start = self.data.tell()
        end = self.data.find(b"\n", start, start + self.left) + 1
        return self._taken(self.data.read(end - start if end else self.left))

    def _taken(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left <= 0:
            raise PickleError("the pickle is longer than any state dict's", _AGAIN)
        return data

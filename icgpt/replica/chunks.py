"""The chunk store of a canister: pieces of a module, kept as files named by their hashes."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from icgpt.files import write_atomically
from icgpt.replica import rejects
from icgpt.replica.records import CanisterRecord
from icgpt.replica.rejects import RejectError

MAX_CHUNK = 1 << 20
MAX_CHUNKS = 100


def _error(text: str) -> RejectError:
    return RejectError(rejects.reject(504, f"Error from Wasm chunk store: {text}."))


def store(folder: Path, record: CanisterRecord, chunk: bytes) -> bytes:
    """Keep a chunk; return its SHA-256."""
    digest = keep(folder, record.chunks, chunk)
    record.chunks[digest] = len(chunk)
    return digest


def keep(folder: Path, known: dict[bytes, int], chunk: bytes, prefix: str = "") -> bytes:
    """Write a chunk's file unless it is known already; return its SHA-256."""
    if len(chunk) > MAX_CHUNK:
        raise _error(f"Wasm chunk size {len(chunk)} exceeds the maximum chunk size of {MAX_CHUNK}")
    digest = hashlib.sha256(chunk).digest()
    if digest not in known:
        if len(known) >= MAX_CHUNKS:
            raise _error(f"Wasm chunk store has already reached maximum capacity of {MAX_CHUNKS}")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{prefix}{digest.hex()}", chunk, sync=False)
    return digest


def assemble(folder: Path, record: CanisterRecord, hashes: list[bytes], whole: bytes) -> bytes:
    """Join chunks to the module whose SHA-256 is `whole`."""
    if len(hashes) > MAX_CHUNKS:
        raise _error(f"A module has at most {MAX_CHUNKS} chunks, not {len(hashes)}")
    for digest in hashes:
        if digest not in record.chunks:
            raise _error(f"Chunk hash {digest.hex()} was not found")
    wasm = b"".join((folder / digest.hex()).read_bytes() for digest in hashes)
    actual = hashlib.sha256(wasm).digest()
    if actual != whole:
        raise _error(f"Wasm module hash {actual.hex()} does not match given hash {whole.hex()}")
    return wasm


def clear(folder: Path, record: CanisterRecord) -> None:
    """Drop all chunks."""
    record.chunks.clear()
    if folder.exists():
        shutil.rmtree(folder)


def forget_missing(folder: Path, record: CanisterRecord) -> None:
    """Forget the chunks whose files are gone: dropped just before the process was killed."""
    for digest in list(record.chunks):
        if not (folder / digest.hex()).is_file():
            del record.chunks[digest]

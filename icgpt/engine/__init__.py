"""The canister's engine in this process: it converts models as a canister does."""

from icgpt.engine.errors import EngineError, EngineMemoryError
from icgpt.engine.instance import FileSource, Sink, Source
from icgpt.engine.packing import Packed, pack, pack_weights, packed_length

__all__ = [
    "EngineError",
    "EngineMemoryError",
    "FileSource",
    "Packed",
    "Sink",
    "Source",
    "pack",
    "pack_weights",
    "packed_length",
]

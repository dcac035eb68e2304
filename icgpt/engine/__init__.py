"""The canister's engine in this process: it converts models, and runs them."""

from icgpt.engine.errors import EngineError, EngineMemoryError
from icgpt.engine.instance import FileSource, Sink, Source
from icgpt.engine.packing import Packed, pack, pack_weights, packed_length
from icgpt.engine.running import Engine, Event, Submitted

__all__ = [
    "Engine",
    "EngineError",
    "EngineMemoryError",
    "Event",
    "FileSource",
    "Packed",
    "Sink",
    "Source",
    "Submitted",
    "pack",
    "pack_weights",
    "packed_length",
]

"""Models from wherever they are: found, read with caps and checked before anything is sent."""

from icgpt.checkpoint.config import Config
from icgpt.checkpoint.model_files import Checkpoint, SourceFile, hash_file
from icgpt.checkpoint.source import built_in, open_checkpoint
from icgpt.checkpoint.state_dict import MODEL_SHAPES

__all__ = [
    "MODEL_SHAPES",
    "Checkpoint",
    "Config",
    "SourceFile",
    "built_in",
    "hash_file",
    "open_checkpoint",
]

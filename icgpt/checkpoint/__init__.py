"""Models on disk: found, read with caps and checked before a byte of them is sent."""

from icgpt.checkpoint.config import Config
from icgpt.checkpoint.source import Checkpoint, SourceFile, built_in, hash_file, open_checkpoint

__all__ = ["Checkpoint", "Config", "SourceFile", "built_in", "hash_file", "open_checkpoint"]

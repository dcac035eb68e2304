"""What the engine refuses, by the kinds that the module tells apart."""

from __future__ import annotations

from typing import Final

from icgpt.errors import CheckpointError, IcgptError, UsageError


class EngineError(IcgptError):
    """The engine in this process failed; it has to be loaded again."""

    kind = "engine"


class EngineMemoryError(EngineError):
    """A model or its work does not fit in the memory that one engine can have."""

    kind = "engine_memory"
    usual_hint = "An engine has 4 GiB at most: choose a lower precision, or run fewer at once."


_KINDS: Final[dict[int, type[IcgptError]]] = {
    1: CheckpointError,
    2: UsageError,
    3: EngineMemoryError,
}


def failure(status: int, text: str) -> IcgptError:
    """The error that a negative status and its text stand for."""
    return _KINDS.get(-status, EngineError)(text)

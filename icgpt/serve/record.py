"""What is noted of one request while it is answered, for the log and the figures.

The record of the request that is being answered is in `current`; tasks that a route starts see the
same one.
"""

from __future__ import annotations

import secrets
import time
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Record:
    """One request."""

    id: str = field(default_factory=lambda: f"req-{secrets.token_hex(8)}")
    began: float = field(default_factory=time.monotonic)
    caller: str = "-"
    """Who asks: a name made of the key, or the address."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finishes: list[str] = field(default_factory=list)
    first_token: float | None = None
    """When the first token came."""
    prompts: list[str] = field(default_factory=list)
    """Noted only where the settings ask for it."""
    answers: list[str] = field(default_factory=list)


current: ContextVar[Record] = ContextVar("record")


def record() -> Record:
    """The record of the request that is being answered; one of its own outside of any."""
    return current.get(None) or Record()

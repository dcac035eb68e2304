"""What can be set of a service, and its limits as they are when nobody sets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PORT: Final = 8080
MAX_CONTEXT: Final = 512
MAX_TOKENS: Final = 1024
MAX_BODY_BYTES: Final = 1 << 20
AT_ONCE: Final = 8
QUEUE: Final = 64
DRAIN_SECONDS: Final = 30


@dataclass(frozen=True)
class Settings:
    """How a service behaves."""

    host: str = "127.0.0.1"
    ports: tuple[int, ...] = (PORT,)
    name: str | None = None
    """What the model is called; the source's or the canister's own name when left out."""
    api_keys: tuple[str, ...] = ()
    """Any of these lets a caller in; without one everybody may ask."""
    instances: int = 1
    """Engines on this machine, each in a process and on a processor of its own."""
    at_once: int = AT_ONCE
    """Answers that one engine, or the canister, writes at the same time."""
    queue: int = QUEUE
    """Answers that may wait for their turn."""
    max_context: int = MAX_CONTEXT
    """Tokens of prompt and answer together; for models whose context slides, of the prompt."""
    max_tokens: int = MAX_TOKENS
    """New tokens that one answer may have."""
    max_body_bytes: int = MAX_BODY_BYTES
    rate_limit: int | None = None
    """Requests a minute for each key, or each address where there are no keys."""
    drain_seconds: int = DRAIN_SECONDS
    """How long answers may go on once the service is told to end."""
    log_prompts: bool = False
    """Whether the log has what was asked and answered."""

"""How many tokens a request took, as several services' clients read it."""

from __future__ import annotations

from pydantic import BaseModel


class Usage(BaseModel):
    """How many tokens it took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt: int, completion: int) -> Usage:
        """Of two counts."""
        return cls(
            prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
        )

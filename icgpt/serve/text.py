"""The text of an answer while its tokens come, as a canister shows it.

Held back is what may still become something else: a character that is not complete, and the
beginning of a stop string. Only the last tokens are decoded again, so that long answers stay cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

CUT: Final = "\N{REPLACEMENT CHARACTER}"
_KNOWN: Final = 4  # tokens whose text is known, in front of new ones: spelling can depend on them
_LONGEST: Final = 16  # tokens that one character may be spread over, with room to spare


class Visible:
    """Tells the text that is new, token by token.

    Args:
        decode: gives the text of token ids.
        stop: texts that end the answer.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = stop
        self._longest = max((len(one) for one in stop), default=0)
        self._window: list[int] = []
        self._known = 0
        self._held = ""

    def add(self, token_ids: Sequence[int], ended: bool) -> str:
        """What can be shown now."""
        text = self._held + self._added(token_ids, ended)
        found = [at for at in map(text.find, self._stop) if at >= 0]
        if found:
            self._held = ""
            return text[: min(found)]
        end = len(text) if ended else self._safe(text)
        self._held = text[end:]
        return text[:end]

    def _added(self, token_ids: Sequence[int], ended: bool) -> str:
        """The text of new tokens; nothing while the last of them ends within a character."""
        before = self._decode(self._window[: self._known])
        self._window += token_ids
        whole = self._decode(self._window)
        new = whole[_shared(before, whole) :]
        if new.endswith(CUT) and not ended and len(self._window) - self._known < _LONGEST:
            return ""
        self._window = self._window[-_KNOWN:]
        self._known = len(self._window)
        return new

    def _safe(self, text: str) -> int:
        """Where the end begins that may become a stop string."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if any(one.startswith(text[start:]) for one in self._stop):
                return start
        return len(text)


def _shared(first: str, second: str) -> int:
    """How many characters two texts begin with alike."""
    if second.startswith(first):
        return len(first)
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), len(second))

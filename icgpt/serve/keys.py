"""Who may ask, and how often: keys from three kinds of headers, and a bucket of requests for each.

A key comes as `x-api-key: KEY`, `Authorization: Bearer KEY` or `Authorization: Api-Key KEY`.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from icgpt.serve.errors import BusyError, KeyMissingError
from icgpt.serve.record import record
from icgpt.serve.settings import Settings

_SCHEMES: Final = ("bearer", "api-key")
_MOST_CALLERS: Final = 10_000
_own = APIKeyHeader(
    name="x-api-key", auto_error=False, scheme_name="x-api-key", description="The service's key."
)
_standard = APIKeyHeader(
    name="Authorization",
    auto_error=False,
    scheme_name="Authorization",
    description="`Bearer KEY` or `Api-Key KEY`.",
)


class Keys:
    """The keys that let callers in, and what each caller has asked lately."""

    def __init__(self, settings: Settings) -> None:
        self._known = [_digest(key) for key in settings.api_keys]
        self._rate = settings.rate_limit
        self._buckets: dict[str, tuple[float, float]] = {}

    def caller(self, key: str | None, address: str) -> str:
        """Who asks, by a name that tells nothing of the key; KeyMissingError for a stranger."""
        if not self._known:
            return address
        digest = _digest(key or "")
        # All are compared, each in the same time, whatever they have in common.
        if not sum(hmac.compare_digest(digest, known) for known in self._known):
            raise KeyMissingError(
                "the key is not known" if key else "a key is needed",
                "Send it as x-api-key, or as Authorization: Bearer KEY.",
            )
        return f"key-{digest.hex()[:8]}"

    def count(self, caller: str) -> None:
        """Takes a request out of a caller's bucket; BusyError when it is empty."""
        if self._rate is None:
            return
        now = time.monotonic()
        left, then = self._buckets.pop(caller, (float(self._rate), now))
        left = min(float(self._rate), left + (now - then) * self._rate / 60)
        taken = left >= 1
        self._buckets[caller] = (left - taken, now)  # at the end: the first asked longest ago
        if len(self._buckets) > _MOST_CALLERS:
            del self._buckets[next(iter(self._buckets))]
        if not taken:
            raise BusyError(
                f"more than {self._rate} requests a minute",
                "Ask less often.",
                retry_after=math.ceil((1 - left) * 60 / self._rate),
            )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _from_headers(own: str | None, standard: str | None) -> str | None:
    """The key that came with a request."""
    if own:
        return own
    scheme, _, key = (standard or "").partition(" ")
    return key.strip() if scheme.lower() in _SCHEMES else None


async def let_in(
    request: Request,
    own: Annotated[str | None, Security(_own)],
    standard: Annotated[str | None, Security(_standard)],
) -> None:
    """Refuses a request without a known key, and one too many of a caller."""
    keys: Keys = request.app.state.keys
    address = request.client.host if request.client is not None else "-"
    caller = keys.caller(_from_headers(own, standard), address)
    record().caller = caller
    keys.count(caller)


KNOWN_CALLER: Final = Depends(let_in)
"""The dependency of every route that is not for everybody."""

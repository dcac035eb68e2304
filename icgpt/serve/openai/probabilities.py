"""Log-probabilities in the two forms that OpenAI's interface has for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from icgpt.results import Logprob, TokenLogprobs
from icgpt.serve.backend import Backend

_LEAST: Final = -9999.0  # as OpenAI tells what is all but impossible
_CUT: Final = "\N{REPLACEMENT CHARACTER}"


async def texts_of(backend: Backend, places: Sequence[TokenLogprobs]) -> dict[int, str]:
    """The texts of all tokens that stand in these places."""
    ids = sorted({one.token_id for place in places for one in (place.chosen, *place.top)})
    return dict(zip(ids, await backend.decode_each(ids), strict=True)) if ids else {}


def of_completion(
    places: Sequence[TokenLogprobs], texts: dict[int, str], start: int
) -> dict[str, Any]:
    """As completions have them; `start` is how long the text before them is."""
    tokens = [texts[place.chosen.token_id] for place in places]
    offsets = []
    for token in tokens:
        offsets.append(start)
        start += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [_number(place.chosen) for place in places],
        "top_logprobs": [
            {texts[one.token_id]: _number(one) for one in (place.chosen, *reversed(place.top))}
            for place in places
        ],
        "text_offset": offsets,
    }


def of_chat(places: Sequence[TokenLogprobs], texts: dict[int, str]) -> dict[str, Any]:
    """As chat completions have them."""
    content = [
        {**_entry(place.chosen, texts), "top_logprobs": [_entry(one, texts) for one in place.top]}
        for place in places
    ]
    return {"content": content, "refusal": None}


def _entry(one: Logprob, texts: dict[int, str]) -> dict[str, Any]:
    text = texts[one.token_id]
    whole = None if _CUT in text else list(text.encode())
    return {"token": text, "logprob": _number(one), "bytes": whole}


def _number(one: Logprob) -> float:
    return one.logprob if one.logprob > _LEAST else _LEAST

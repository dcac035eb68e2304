"""Arguments that are small on the wire and endless to decode must not cost cycles."""

from __future__ import annotations

import pytest

from icgpt.candid import unsigned_leb128
from icgpt.client import ModelCanister
from icgpt.errors import RefusedError

# A text, and behind it an argument that nobody asked for: 2^32 - 1 nulls in no bytes at all.
BOMB = b"DIDL\x01\x6d\x7f\x02\x71\x00" + b"\x01a" + unsigned_leb128(2**32 - 1)


def test_a_bomb_in_an_extra_argument(shakespeare: ModelCanister) -> None:
    with pytest.raises(RefusedError, match=r"(?i)quota|limit|cost"):
        shakespeare.agent.query(shakespeare.id, "tokenize", BOMB)


@pytest.mark.parametrize("argument", [b"", b"DIDL", b"DIDL\x00\x01\x71\xff", b"\x00" * 1000])
def test_what_is_no_candid(shakespeare: ModelCanister, argument: bytes) -> None:
    with pytest.raises(RefusedError):
        shakespeare.agent.query(shakespeare.id, "tokenize", argument)
    with pytest.raises(RefusedError):
        shakespeare.agent.update(shakespeare.id, "generate", argument)
    assert shakespeare.tokenize("a").token_ids == [39]

"""Prices in cycles that a canister may ask for through `ic0.cost_*`: those of a 13-node subnet."""

from __future__ import annotations

NODES = 13

CREATE_CANISTER = 500_000_000_000
SIGN = 26_153_846_153  # ECDSA, Schnorr and vetKD alike
KEYS = frozenset((b"key_1", b"test_key_1", b"dfx_test_key"))

_CALL = 260_000
_CALL_BYTE = 1_000
_MAX_RESPONSE = 2 << 20
_MESSAGE = 5_000_000
_MAX_INSTRUCTIONS = 40_000_000_000  # one cycle each


def call(size: int) -> int:
    """A call that sends `size` bytes, its response and callback paid for in advance."""
    response = _CALL_BYTE * _MAX_RESPONSE + _MESSAGE + _MAX_INSTRUCTIONS
    return _CALL + _CALL_BYTE * size + response


def http_request(request_size: int, max_response: int) -> int:
    """An HTTPS outcall made by every node."""
    return (3_000_000 + 60_000 * NODES + 400 * request_size + 800 * max_response) * NODES

"""What an HTTPS outcall is to be paid with under pricing version 2: `ic0.cost_http_request_v2`.

The platform charges what a call uses, and asks beforehand for what it could use: each node that
makes the request pays for bytes, time and the transform, then the subnet for putting the response
into a block. Nobody knows beforehand which response that will be, so the dearest is paid for; what
is not used comes back. See rs/https_outcalls/pricing/src/fees.rs of dfinity/ic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from icgpt.candid import NAT32, NAT64, RESERVED, Opt, Record, Variant
from icgpt.replica.costs import NODES

REQUEST = Record(
    {
        "request_bytes": NAT64,
        "http_roundtrip_time_ms": NAT64,
        "raw_response_bytes": NAT64,
        "transformed_response_bytes": NAT64,
        "transform_instructions": NAT64,
        "outcall_type": Opt(
            Variant(
                {
                    "fully_replicated": RESERVED,
                    "non_replicated": RESERVED,
                    "flexible": Opt(
                        Record(
                            dict.fromkeys(
                                ("total_requests", "min_responses", "max_responses"), NAT32
                            )
                        )
                    ),
                }
            )
        ),
    }
)

_REQUEST = 1_000_000
_REQUEST_BYTE = 50
_NODE = 140_000  # where all nodes ask and agree
_NODE_SQUARED = 800
_GOSSIP_NODE = 90_000  # where some ask, and tell the others
_GOSSIP_NODE_RESPONSE = 2_000
_GOSSIP_RESPONSE = 100_000
_GOSSIP_NODE_BYTE = 50
_RAW_BYTE = 50
_MILLISECOND = 300
_TRANSFORM_DIVISOR = 13  # on subnets of every size
_BLOCK_NODE_BYTE = 10
_BLOCK_BYTE = 600
_FLEXIBLE_OVERHEAD = 181  # bytes that each of several responses takes besides
_LARGEST_REJECT = 1_025  # bytes that may come in place of any response


@dataclass(frozen=True)
class _Outcall:
    """How many nodes ask, and how many responses it takes."""

    nodes: int
    least: int
    most: int
    gossips: bool  # each node has a response of its own
    flexible: bool = False


def _outcall(kind: dict[str, Any] | None) -> _Outcall:
    if kind is None or "fully_replicated" in kind:
        return _Outcall(NODES, 1, 1, gossips=False)
    if "non_replicated" in kind:
        return _Outcall(1, 1, 1, gossips=True)
    counts = kind["flexible"]
    if counts is None:
        return _Outcall(NODES, 2 * NODES // 3 + 1, NODES, gossips=True, flexible=True)
    nodes, least, most = (
        counts[name] for name in ("total_requests", "min_responses", "max_responses")
    )
    return _Outcall(nodes, least, most, gossips=True, flexible=True)


def price(request: dict[str, Any]) -> int:
    """Return what to attach to an outcall that uses this much; `REQUEST` is its type."""
    outcall = _outcall(request["outcall_type"])
    delivered = max(request["transformed_response_bytes"], _LARGEST_REJECT)
    each: int = (
        _RAW_BYTE * request["raw_response_bytes"]
        + _MILLISECOND * request["http_roundtrip_time_ms"]
        + request["transform_instructions"] // _TRANSFORM_DIVISOR
    )
    if outcall.gossips:
        each += _GOSSIP_NODE_BYTE * delivered * NODES
    delivery = _delivery(outcall, delivered)
    shared = _up(delivery, outcall.nodes) if outcall.nodes else 0
    return _base(outcall, request["request_bytes"]) + (each + shared) * outcall.nodes


def _base(outcall: _Outcall, size: int) -> int:
    """What is taken for every request, whatever comes of it."""
    base = _REQUEST + _REQUEST_BYTE * size
    if outcall.gossips:
        base += _GOSSIP_NODE * NODES
        base += (_GOSSIP_NODE_RESPONSE * NODES + _GOSSIP_RESPONSE) * outcall.least
    else:
        base += _NODE * NODES + _NODE_SQUARED * NODES * NODES
    return base * NODES


def _delivery(outcall: _Outcall, size: int) -> int:
    """What it takes to put the dearest outcome into a block."""
    byte = (_BLOCK_NODE_BYTE * NODES + _BLOCK_BYTE) * NODES
    if not outcall.gossips:
        # Only those who agree pay, and all have to hold an equal share beforehand.
        agreeing = NODES - (NODES - 1) // 3
        return _up(byte * size, agreeing) * NODES
    if not outcall.flexible:
        return byte * size
    if not outcall.most:
        return 0
    surplus = max(0, outcall.nodes - outcall.least)
    more = (_GOSSIP_NODE_RESPONSE * NODES + _GOSSIP_RESPONSE) * NODES * surplus
    return byte * outcall.nodes * (_FLEXIBLE_OVERHEAD + size) + more


def _up(amount: int, parts: int) -> int:
    return -(-amount // parts)

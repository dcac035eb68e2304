"""The price of an HTTPS outcall under pricing version 2, held against the platform's own tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exec_support import Driver, trap_text, wat

from icgpt.candid import NAT64, Record, encode
from icgpt.replica.outcalls import REQUEST, price

USE = {
    "request_bytes": 100,
    "http_roundtrip_time_ms": 2_000,
    "raw_response_bytes": 1_000,
    "transformed_response_bytes": 2_000,
    "transform_instructions": 26,
    "outcall_type": None,
}
NODE = 50 * 1_000 + 300 * 2_000 + 26 // 13  # what each asking node takes
GOSSIP = 50 * 2_000 * 13


def flexible(total: int, least: int, most: int) -> dict[str, Any]:
    counts = {"total_requests": total, "min_responses": least, "max_responses": most}
    return {"flexible": counts}


# As rs/https_outcalls/pricing/src/fees.rs works them out by hand, on 13 nodes.
PRICES: list[tuple[dict[str, Any] | None, int]] = [
    (None, 38_482_600 + 13 * NODE + 27_415_557),
    ({"fully_replicated": None}, 38_482_600 + 13 * NODE + 27_415_557),
    ({"non_replicated": None}, 29_913_000 + NODE + GOSSIP + 18_980_000),
    (flexible(3, 2, 3), 31_551_000 + 3 * (NODE + GOSSIP) + 62_093_070 + 1_638_000),
    # Nobody waits for an answer, and none is put into a block.
    (flexible(3, 0, 0), 13 * (1_000_000 + 5_000 + 1_170_000) + 3 * (NODE + GOSSIP)),
]


@pytest.mark.parametrize(("kind", "expected"), PRICES)
def test_prices(kind: dict[str, Any] | None, expected: int) -> None:
    assert price({**USE, "outcall_type": kind}) == expected


def test_a_flexible_outcall_asks_everybody_by_default() -> None:
    asked = price({**USE, "outcall_type": flexible(13, 9, 13)})
    assert price({**USE, "outcall_type": {"flexible": None}}) == asked


def test_a_short_response_is_paid_for_as_a_reject() -> None:
    short = [price({**USE, "transformed_response_bytes": size}) for size in (0, 1_025, 1_026)]
    assert short[0] == short[1] < short[2]


def test_the_documented_examples() -> None:
    """As the platform's guide tells them, to the digits that it gives: 5.3 and 34.0 billion."""
    most = {"http_roundtrip_time_ms": 60_000, "transform_instructions": 5_000_000_000}
    for size, billions in ((4_000, "5.3"), (2_000_000, "34.0")):
        sizes = {"raw_response_bytes": size, "transformed_response_bytes": size}
        assert f"{price({**USE, **most, **sizes}) / 1e9:.1f}" == billions


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """A canister that asks for the price of what its argument describes."""
    driver = Driver(tmp_path / "canister")
    body = """(func (export "canister_update f")
        (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (call $msg_arg_data_size))
        (call $cost_http_request_v2 (i32.const 0) (call $msg_arg_data_size) (i32.const 1024))
        (call $msg_reply_data_append (i32.const 1024) (i32.const 16))
        (call $msg_reply))"""
    calls = ("msg_arg_data_size", "msg_arg_data_copy", "msg_reply_data_append", "msg_reply")
    assert driver.install(wat(body, "cost_http_request_v2", *calls)).trap is None
    yield driver
    driver.canister.close()


def test_a_canister_asks(driver: Driver) -> None:
    outcome = driver.update("f", encode([REQUEST], [USE]))
    assert outcome.reply is not None
    assert int.from_bytes(outcome.reply, "little") == PRICES[0][1]
    # The oldest form of the parameters has no kind of outcall.
    known = {name: value for name, value in USE.items() if name != "outcall_type"}
    old = encode([Record(dict.fromkeys(known, NAT64))], [known])
    assert driver.update("f", old).reply == outcome.reply


@pytest.mark.parametrize("left_out", ["request_bytes", "transform_instructions"])
def test_what_is_no_description_traps(driver: Driver, left_out: str) -> None:
    known = {n: v for n, v in USE.items() if n not in (left_out, "outcall_type")}
    arg = encode([Record(dict.fromkeys(known, NAT64))], [known])
    assert "can't be decoded" in trap_text(driver.update("f", arg))
    assert "can't be decoded" in trap_text(driver.update("f", b"DIDL"))

"""The engine's instruction counts stay what docs/performance.json says, or get better."""

from __future__ import annotations

import json
from typing import Any

import pytest
import shapes
from engine_counts import RESULTS, grown, measure

COMMITTED: dict[str, Any] = json.loads(RESULTS.read_text())
HOW = "see what has become dearer; when it has to be, ./scripts/bench engine --write"


def quick(shape: str) -> dict[str, Any]:
    """Some of a shape's figures in every precision, measured now."""
    assert shapes.WASM.is_file(), "run ./scripts/setup first"
    return dict(measure(shape, quick=True))


@pytest.fixture(scope="module")
def demo() -> dict[str, Any]:
    """Some of the demo model's figures."""
    return quick("demo")


def test_the_demo_model_has_not_become_dearer(demo: dict[str, Any]) -> None:
    assert demo.keys() == COMMITTED["demo"].keys() == set(shapes.PRECISIONS)
    for precision, figures in demo.items():
        # What the jobs before left in the canister moves a count by some 40,000 instructions, which
        # is 1.5 % of so small a model's token and nothing of a larger one's.
        assert grown(COMMITTED["demo"][precision], figures, by=0.02) == [], HOW


def test_counts_are_the_same_on_every_run(demo: dict[str, Any]) -> None:
    assert quick("demo") == demo


@pytest.mark.slow
def test_gpt2_124m_has_not_become_dearer() -> None:
    now = dict(measure("gpt2-124m", ["int8", "int16"], quick=True))
    for precision, figures in now.items():
        assert grown(COMMITTED["gpt2-124m"][precision], figures) == [], HOW


def test_growth_is_told() -> None:
    before = {"decode": {"1": 1000, "128": 2000}, "tokens_per_update": 100, "gone": 1}
    assert grown(before, before) == []
    assert grown(before, {"decode": {"1": 1010, "128": 5}, "tokens_per_update": 99}) == []
    now = {"decode": {"1": 1011, "128": 2000}, "tokens_per_update": 98, "new": 7}
    assert grown(before, now) == [
        "decode 1: 1,000 before, 1,011 now",
        "tokens_per_update: 100 before, 98 now",
    ]
    pages = {"pages": {"setup": 8_000_000}}
    assert grown(pages, {"pages": {"setup": 9_700_000}}) == []
    assert grown(pages, {"pages": {"setup": 9_800_000}}) != []

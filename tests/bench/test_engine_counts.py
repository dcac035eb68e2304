"""The engine's instruction counts stay what docs/performance.json says, or get better."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from engine_counts import RESULTS, WASM, grown, measure, table

COMMITTED: dict[str, Any] = json.loads(RESULTS.read_text())
HOW = "see what has become dearer; when it has to be, ./scripts/bench engine --write"


@pytest.fixture(scope="module")
def demo() -> dict[str, Any]:
    """Some of the demo model's figures, measured now."""
    assert WASM.is_file(), "run ./scripts/setup first"
    return measure("demo", quick=True)


def test_the_demo_model_has_not_become_dearer(demo: dict[str, Any]) -> None:
    assert demo.keys() <= COMMITTED["demo"].keys()
    assert grown(COMMITTED["demo"], demo) == [], HOW


def test_counts_are_the_same_on_every_run(demo: dict[str, Any]) -> None:
    assert measure("demo", quick=True) == demo


@pytest.mark.slow
def test_gpt2_124m_has_not_become_dearer() -> None:
    now = measure("gpt2-124m", quick=True)
    assert grown(COMMITTED["gpt2-124m"], now) == [], HOW


def test_growth_is_told() -> None:
    before = {"decode": {"1": 1000, "128": 2000}, "tokens_per_update": 100, "gone": 1}
    assert grown(before, before) == []
    assert grown(before, {"decode": {"1": 1010, "128": 5}, "tokens_per_update": 99}) == []
    now = {"decode": {"1": 1011, "128": 2000}, "tokens_per_update": 98, "new": 7}
    assert grown(before, now) == [
        "decode 1: 1,000 before, 1,011 now",
        "tokens_per_update: 100 before, 98 now",
    ]


def test_the_page_shows_the_committed_figures() -> None:
    """Each figure of docs/performance.json that docs/performance.md gives in M is the same."""
    page = RESULTS.with_suffix(".md").read_text()
    names = {"box": "demo", "124M": "gpt2-124m"}
    rows = re.findall(r"^\| (decode|prefill), (\d+) \| (.*?) \|$", page, re.MULTILINE)
    assert len(rows) >= 8
    heads = re.search(r"^\| millions of instructions \| (.*) \|$", page, re.MULTILINE)
    assert heads is not None
    for kind, n, cells in rows:
        for head, cell in zip(heads[1].split(" | "), cells.split(" | "), strict=True):
            shape = next((names[name] for name in names if name in head), None)
            if shape is None or "ours" not in head or n not in COMMITTED[shape]["f32"][kind]:
                continue
            count = COMMITTED[shape]["f32"][kind][n] / 1e6
            assert cell == (f"{count:,.1f}" if count < 1000 else f"{count:,.0f}"), (shape, kind, n)


def test_the_table_names_every_kind_of_figure() -> None:
    text = table(COMMITTED)
    for word in ("decode", "prefill", "upload", "setup", "upgrade", "tokens_per_update"):
        assert word in text

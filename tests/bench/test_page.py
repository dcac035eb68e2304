"""docs/performance.md shows exactly what the committed result files say."""

from __future__ import annotations

import json

import engine_counts
import metering_counts
import page
import pytest
import quality_figures
import wall_clock

TABLES = {
    "engine": (engine_counts.RESULTS, page.engine_tables),
    "quality": (quality_figures.RESULTS, quality_figures.table),
    "metering": (metering_counts.RESULTS, metering_counts.table),
    "wall": (wall_clock.RESULTS, wall_clock.table),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_page_shows_the_committed_figures(name: str) -> None:
    results, table = TABLES[name]
    wanted = table(json.loads(results.read_text()))
    assert f"<!-- {name} -->\n{wanted}\n<!-- end of {name} -->" in page.PAGE.read_text()


def test_the_tables_name_every_kind_of_figure() -> None:
    text = page.engine_tables(json.loads(engine_counts.RESULTS.read_text()))
    for word in ("a token", "a prompt", "update", "query", "upload", "set-up", "upgrade", "peer"):
        assert word in text


def test_an_unknown_place_of_the_page_is_refused() -> None:
    with pytest.raises(SystemExit, match="0 places named nowhere"):
        page.put("nowhere", "text")

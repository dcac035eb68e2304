"""docs/performance.md shows exactly what the committed result files say."""

from __future__ import annotations

import json

import engine_counts
import gptj_6b
import metering_counts
import page
import pytest
import quality_figures
import scaling
import service_speed
import wall_clock

TABLES = {
    "engine": (engine_counts.RESULTS, page.engine_tables),
    "quality": (quality_figures.RESULTS, quality_figures.table),
    "metering": (metering_counts.RESULTS, metering_counts.table),
    "gptj-6b": (gptj_6b.RESULTS, gptj_6b.table),
    "wall": (wall_clock.RESULTS, wall_clock.table),
    "serve": (service_speed.RESULTS, service_speed.table),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_page_shows_the_committed_figures(name: str) -> None:
    results, table = TABLES[name]
    wanted = table(json.loads(results.read_text()))
    assert f"<!-- {name} -->\n{wanted}\n<!-- end of {name} -->" in page.PAGE.read_text()


def test_the_page_on_scaling_shows_the_committed_figures() -> None:
    wanted = scaling.table(json.loads(engine_counts.RESULTS.read_text()))
    assert f"<!-- scaling -->\n{wanted}\n<!-- end of scaling -->" in page.SCALING.read_text()


def test_a_fleet_is_as_fast_as_its_threads() -> None:
    figures = {
        "prefill": {"32": 500_000_000},
        "decode": {"128": 20_000_000},
        "together": {"128": 10_000_000},
        "pages": {"decode": 400_000_000},
    }
    # 0.5 B for the prompt, 100 times 20 M or 10 M; a tenth more for touched pages.
    assert scaling.answer_instructions(figures, together=False) == 2_750_000_000
    assert scaling.answer_instructions(figures, together=True) == 1_650_000_000
    one = scaling.tokens_per_second(figures, 1, 1)
    assert one == pytest.approx(100 * 2 / 1.65)
    rates = [scaling.tokens_per_second(figures, *fleet) for fleet in ((4, 1), (9, 1), (9, 2))]
    assert rates == pytest.approx([4 * one, 4 * one, 8 * one])
    # 1.65 B cycles for the work, three messages of 5 M, and the ingress: 2.156 M.
    assert scaling.usd_per_million(figures) == pytest.approx(1.667156e9 * 1e4 * 1.37e-12)


def test_the_tables_name_every_kind_of_figure() -> None:
    text = page.engine_tables(json.loads(engine_counts.RESULTS.read_text()))
    for word in ("a token", "a prompt", "update", "query", "upload", "set-up", "upgrade", "peer"):
        assert word in text


def test_an_unknown_place_of_the_page_is_refused() -> None:
    with pytest.raises(SystemExit, match="0 places named nowhere"):
        page.put("nowhere", "text")

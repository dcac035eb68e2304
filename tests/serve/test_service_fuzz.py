"""Requests of all kinds from the service's own document; `scripts/fuzz` sends ten thousand."""

from __future__ import annotations

import pytest

pytest.importorskip("schemathesis", reason="schemathesis is missing")

import service_fuzz


@pytest.mark.slow
def test_no_request_breaks_the_service() -> None:
    found = service_fuzz.run(1, seed=1, examples=15)
    assert not [status for status in found if status.startswith("5")]
    assert {"200", "422"} <= set(found)

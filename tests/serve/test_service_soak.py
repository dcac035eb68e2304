"""A minute of `scripts/soak serve`."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="FastAPI is missing: pip install 'icgpt[serve]'")

import service_soak


@pytest.mark.slow
def test_mixed_requests_while_engines_are_killed() -> None:
    found = service_soak.soak(1.0, seed=1)
    assert found["kills"] > 3
    for what in ("whole", "streams", "several", "cut", "tokens", "nonsense"):
        assert found[what] > 0

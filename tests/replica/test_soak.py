"""Two minutes of killing the network at random moments."""

from __future__ import annotations

from pathlib import Path

import pytest
import soak


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    report = soak.soak(2.0, 20, tmp_path)
    assert report["kills"] > 5
    assert report["updates"]
    assert report["appends"]
    assert report["generations"]
    # Nothing grows with the number of lives: some 40 MB come and go with the upload.
    assert report["folder_mb_second_half"] < 2 * report["folder_mb_first_half"] + 100

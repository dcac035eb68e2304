"""Two models that the heap can't hold together: the one that answers makes way, unless it is in use.

The large one, 2.8 GB of zeros, is put into stable memory as `gptj_6b` does it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gptj_6b
import pytest
from faulty_canister import FaultyCanister, RefusedError

from icgpt.interface import OPTION_TYPES

pytestmark = pytest.mark.slow

LAYERS = 12


@pytest.fixture
def canister(wasm: bytes, tmp_path: Path) -> Iterator[FaultyCanister]:
    """A canister with the large model; uploaded is a small one."""
    one = FaultyCanister(tmp_path / "canister", wasm)
    shape = {**gptj_6b.SHAPE, "n_layer": LAYERS}
    small = gptj_6b.small_model(tmp_path / "small", len(json.dumps(shape)))
    one.upload(small)
    one.set_up("int8")
    one.update("set_heap_for_weights", gptj_6b.MOST_IN_HEAP)
    gptj_6b.replace(one, small, shape, zeros=True)
    one.upgrade()
    # From now on there is room for 2.5 GiB, less than the large model has.
    one.update("set_heap_for_weights", 5 << 29)
    one.upload(small)
    yield one
    one.close()


def layers(canister: FaultyCanister) -> int | None:
    architecture: dict[str, Any] | None = canister.query("model_info")[0]["architecture"]
    return architecture and int(architecture["n_layer"])


def test_the_model_makes_way_when_nothing_runs_on_it(canister: FaultyCanister) -> None:
    options = {**dict.fromkeys(OPTION_TYPES), "seed": 1, "max_new_tokens": 1_000}
    request = canister.begin("submit", {"token_ids": [1]}, options)
    while request.waits:
        canister.deliver()
    job = canister.answer(request)
    canister.wake()
    assert canister.deliver() == "run_jobs"

    # In use: the set-up is refused, and everything is as it was.
    assert layers(canister) == LAYERS
    with pytest.raises(RefusedError, match="generations run on the one that must make way"):
        canister.update("setup_model")
    assert layers(canister) == LAYERS
    assert canister.query("poll", job, 0)[0]["finish"] is None

    canister.update("cancel", job)
    canister.update("set_per_message", 1_000_000)
    seen = []
    request = canister.begin("setup_model")
    while request.waits:
        seen.append(layers(canister))
        if seen[-1] is None:
            # Between the two no model answers, and it says why.
            assert canister.query("model_info")[0]["setup"].keys() == {"setting_up"}
            with pytest.raises(RefusedError, match="setup_model is running"):
                canister.query("complete_query", {"token_ids": [1]}, options)
        canister.deliver()
    canister.answer(request)
    assert seen[0] == LAYERS
    assert seen[-1] is None
    assert layers(canister) == 2
    assert len(canister.update("logits", [1])[0]) == 40

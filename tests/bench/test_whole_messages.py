"""GPT-2's 124M shape in int8 against the platform's limits, page charges included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import shapes
from lone_canister import LoneCanister

from icgpt.interface import OPTION_TYPES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def canister(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoneCanister]:
    folder = tmp_path_factory.mktemp("124m")
    lone = LoneCanister(folder / "canister", shapes.WASM.read_bytes())
    lone.upload(shapes.folder_of("gpt2-124m", folder))
    lone.set_up("int8")
    yield lone
    lone.close()


def options(**changes: Any) -> dict[str, Any]:
    return {**dict.fromkeys(OPTION_TYPES), "temperature": 0.0, "seed": 1, **changes}


def test_a_message_makes_450_tokens(canister: LoneCanister) -> None:
    asked = {"token_ids": [7]}, options(max_new_tokens=450)
    done, spent = canister.update("complete", *asked)
    assert (len(done["token_ids"]), spent.messages) == (450, 1)


def test_a_query_makes_55_tokens(canister: LoneCanister) -> None:
    asked = {"token_ids": [8]}, options(max_new_tokens=1_000)
    done, _ = canister.query("complete_query", *asked)
    assert done["finish"] is None
    assert len(done["token_ids"]) >= 55


def test_a_thousand_tokens_take_as_many_messages_as_they_need(canister: LoneCanister) -> None:
    asked = {"token_ids": [9]}, options(max_new_tokens=1_000)
    whole, spent = canister.update("complete", *asked)
    assert (len(whole["token_ids"]), whole["finish"]) == (1_000, {"length": None})
    assert spent.messages > 1
    job, _ = canister.update("submit", *asked)
    canister.run_timer()
    assert canister.query("poll", job, 0)[0]["token_ids"] == whole["token_ids"]


def test_an_upgrade_in_the_middle_of_a_thousand_tokens(canister: LoneCanister) -> None:
    asked = {"token_ids": [10]}, options(max_new_tokens=1_000)
    whole, _ = canister.update("complete", *asked)
    job, _ = canister.update("submit", *asked)
    canister.upgrade()
    assert canister.query("poll", job, 0)[0]["finish"] is None
    canister.run_timer()
    assert canister.query("poll", job, 0)[0]["token_ids"] == whole["token_ids"]

"""What uploads take: nothing is hashed twice, and `--dry-run` reckons with what was found."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import shapes
import upload_speed
from lone_canister import LoneCanister, Spent

from icgpt import upload_cost

RESULTS = json.loads(upload_speed.RESULTS.read_text())
FOUND = RESULTS["instructions"]
ENGINE = json.loads((upload_speed.page.FOLDER / "performance.json").read_text())["gpt2-124m"]
PARAMETERS = 124_439_808
CHUNK = 1_900_000


@pytest.fixture
def canister(tmp_path: Path) -> Iterator[LoneCanister]:
    lone = LoneCanister(tmp_path / "canister", shapes.WASM.read_bytes())
    yield lone
    lone.close()


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_every_byte_is_hashed_once(canister: LoneCanister, order: str) -> None:
    data = random.Random(1).randbytes(8 * CHUNK)
    sha256 = hashlib.sha256(data).digest()
    places = list(range(0, len(data), CHUNK))
    if order == "backwards":
        places.reverse()
    elif order == "shuffled":
        random.Random(2).shuffle(places)
    kind = {"packed": None}
    spent = canister.update("begin", kind, len(data), sha256)[1]
    for place in places:
        spent += canister.update("write", kind, place, data[place : place + CHUNK])[1]
    spent += canister.update("commit", kind, sha256)[1]
    # Hashing takes 84 instructions a byte; reading again what had to wait, one or two.
    assert each(spent, len(data)) < 84 + (1.5 if order == "forwards" else 4)


def each(spent: Spent, count: int) -> float:
    return spent.instructions / count


def test_a_dry_run_reckons_with_what_was_found() -> None:
    for way, precision in upload_speed.WAYS.items():
        one = FOUND[way]
        sent = one["upload"]["instructions"] + one["upload"]["pages"]
        assert upload_cost.PER_BYTE["write"] == pytest.approx(sent / one["bytes"], rel=0.03)
        setup = one["setup"]["instructions"] + one["setup"]["pages"]
        if precision is not None:
            known = upload_cost.SETUP_PER_PACKED_BYTE[precision]
            assert known == pytest.approx(setup / one["bytes"], rel=0.03)
    for precision, figures in ENGINE.items():
        setup = figures["setup"] + figures["pages"]["setup"]
        known = upload_cost.SETUP_PER_PARAMETER[precision]
        assert known == pytest.approx(setup / PARAMETERS, rel=0.03)
        sent = figures["upload"] + figures["pages"]["upload"]
        known = upload_cost.PER_BYTE["append"]
        assert known == pytest.approx(sent / FOUND["f32, as it is"]["bytes"], rel=0.03)
    for way, times in RESULTS["times"].items():
        assert (
            pytest.approx(1e6 * times["mb_per_second"], rel=0.15)
            == upload_cost.LOCAL_BYTES_PER_SECOND
        )
        setup = FOUND[way]["setup"]["instructions"] + FOUND[way]["setup"]["pages"]
        reckoned = setup / upload_cost.LOCAL_INSTRUCTIONS_PER_SECOND
        if upload_speed.WAYS[way] is not None:
            reckoned = FOUND[way]["bytes"] / upload_cost.LOCAL_LOADED_PER_SECOND
        assert reckoned == pytest.approx(times["setup_seconds"], rel=0.15)


def test_what_uploads_have_to_hold_was_found() -> None:
    for times in RESULTS["times"].values():
        assert times["mb_per_second"] >= 50
        assert times["peak_mb"] < 300
    int8 = RESULTS["times"]["int8, converted"]
    assert int8["hash_seconds"] + int8["upload_seconds"] + int8["setup_seconds"] <= 4

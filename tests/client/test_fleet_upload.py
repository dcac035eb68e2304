"""One model into several canisters: converted once, sent to all at once, and gone on with."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
from model_kit import MakeCanister, tiny_config, write_model

from icgpt import conversion, sending
from icgpt.checkpoint import Checkpoint, open_checkpoint
from icgpt.client import ModelCanister
from icgpt.errors import CheckpointError, FleetError, NetworkError
from icgpt.fleet_upload import upload_fleet
from icgpt.upload import Step


@pytest.fixture
def three(new_canister: MakeCanister) -> dict[str, ModelCanister]:
    return {name: new_canister() for name in ("a", "b", "c")}


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(sending, "CHUNK_BYTES", 700)
    return open_checkpoint(str(write_model(tmp_path / "m", tiny_config())))


def watched(
    models: dict[str, ModelCanister], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[tuple[str, str, int]], list[int]]:
    """The chunks that are sent, and how many were on their way at each."""
    chunks: list[tuple[str, str, int]] = []
    open_, most = [0], []
    lock = threading.Lock()
    for name, model in models.items():

        def write(file: str, at: int, data: bytes, name=name, write=model.write) -> object:
            with lock:
                chunks.append((name, file, at))
                open_[0] += 1
                most.append(open_[0])
            try:
                return write(file, at, data)
            finally:
                with lock:
                    open_[0] -= 1

        monkeypatch.setattr(model, "write", write)
    return chunks, most


def test_all_get_what_was_converted_once(
    three: dict[str, ModelCanister], checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[str] = []
    real = conversion.converted
    monkeypatch.setattr(
        conversion, "converted", lambda *given: (converted.append(given[2]), real(*given))[1]
    )
    chunks, most = watched(three, monkeypatch)
    steps: list[tuple[str, Step]] = []
    asked: list[tuple[int, int]] = []
    done = upload_fleet(
        three,
        checkpoint,
        lambda name, step: steps.append((name, step)),
        precision="int8",
        agree=lambda count, cycles: asked.append((count, cycles)),
    )
    assert converted == ["int8"]
    assert [count for count, _ in asked] == [3]
    assert max(most) <= sending.AT_ONCE
    assert set(Counter(chunks).values()) == {1}
    assert {name for name, step in steps if step.name == "convert"} == {""}
    for name, model in three.items():
        assert done[name].changed
        assert (info := model.info()).ready
        assert (info.precision, info.layout_sha256) == ("int8", done[name].layout)
        own = [step for who, step in steps if who == name]
        assert {step.name for step in own} == {"upload", "setup"}
        sent = [step.done for step in own if step.name == "upload"]
        assert sent == sorted(sent)
        assert sent[-1] == done[name].total
    again = upload_fleet(three, checkpoint, precision="int8")
    assert not any(one.changed for one in again.values())


def test_those_that_failed_are_gone_on_with(
    three: dict[str, ModelCanister], checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_through: list[int] = []
    lock = threading.Lock()
    with monkeypatch.context() as patch:

        def broken(file: str, at: int, data: bytes, write=three["b"].write) -> object:
            with lock:
                if len(let_through) == 3:
                    raise NetworkError("gone")
                let_through.append(at)
            return write(file, at, data)

        patch.setattr(three["b"], "write", broken)
        with pytest.raises(FleetError) as failure:
            upload_fleet(three, checkpoint)
    assert failure.value.done == ["a", "c"]
    assert {name: str(error) for name, error in failure.value.failed.items()} == {"b": "gone"}
    while (found := three["b"].missing("safetensors")) is None or found.arrived < 3 * 700:
        pass  # those on their way when the line went dead
    chunks, _ = watched(three, monkeypatch)
    done = upload_fleet(three, checkpoint)
    assert (done["b"].changed, done["b"].resumed) == (True, 3 * 700)
    assert {name for name, _, _ in chunks} == {"b"}
    assert not {at for _, file, at in chunks if file == "safetensors"} & set(let_through)
    assert len({model.info().layout_sha256 for model in three.values()}) == 1


def test_where_all_fail_alike_it_is_their_error(
    three: dict[str, ModelCanister], checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*_: object) -> None:
        raise NetworkError("nobody answers")

    for model in three.values():
        monkeypatch.setattr(model, "write", dead)
    with pytest.raises(NetworkError, match="nobody answers"):
        upload_fleet(three, checkpoint)
    for model in three.values():
        monkeypatch.setattr(model, "info", dead)
    with pytest.raises(NetworkError, match="nobody answers"):
        upload_fleet(three, checkpoint)


def test_a_conversion_that_fails_is_told_once(
    three: dict[str, ModelCanister], checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise CheckpointError("no room")

    monkeypatch.setattr(conversion, "converted", full)
    chunks, _ = watched(three, monkeypatch)
    with pytest.raises(CheckpointError, match="no room"):
        upload_fleet(three, checkpoint, precision="int8")
    assert not chunks


def test_when_one_is_interrupted_all_end(
    three: dict[str, ModelCanister], checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def show(name: str, step: Step) -> None:
        if step.name == "upload" and step.done:
            told.append(name)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upload_fleet(three, checkpoint, show)
    assert len(told) == 1
    assert not any(model.info().ready for model in three.values())
    assert all(one.changed for one in upload_fleet(three, checkpoint).values())

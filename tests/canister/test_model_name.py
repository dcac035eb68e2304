"""What the model is called: an upload says so, managers change it, other weights take it away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from model_kit import send, tiny_config, upgrade, write_model

from icgpt.checkpoint import open_checkpoint
from icgpt.checkpoint.model_files import FILE_NAMES
from icgpt.client import ModelCanister
from icgpt.errors import CanisterError, UsageError
from icgpt.upload import upload

LONGEST = "é" * 96


@pytest.fixture
def tale(tmp_path: Path) -> Path:
    """A model in a folder of that name."""
    return write_model(tmp_path / "tale", tiny_config())


def told_over_http(canister: ModelCanister) -> str | None:
    """The name among the figures that everybody may read."""
    found = re.search(r'^icgpt_info\{.*model="([^"]*)"', canister.metrics(), re.MULTILINE)
    return found[1] if found else None


def test_an_upload_names_the_model(
    canister: ModelCanister, tale: Path, wasm: bytes, tmp_path: Path
) -> None:
    assert canister.info().name is None
    upload(canister, open_checkpoint(str(tale)))
    assert canister.info().name == told_over_http(canister) == "tale"
    (tmp_path / "project").mkdir()
    upgrade(canister, wasm, tmp_path / "project")
    assert canister.info().name == "tale"
    upload(canister, open_checkpoint(str(write_model(tmp_path / "other", tiny_config(n_layer=2)))))
    assert canister.info().name == "other"


def test_a_name_that_was_given_stays_with_the_weights(canister: ModelCanister, tale: Path) -> None:
    checkpoint = open_checkpoint(str(tale))
    assert upload(canister, checkpoint, name="Winter's Tale", seed_flow=True).changed
    assert not upload(canister, checkpoint, seed_flow=True).changed
    upload(canister, checkpoint, precision="int8", seed_flow=True)
    assert (canister.info().name, canister.info().precision) == ("Winter's Tale", "int8")
    again = upload(canister, checkpoint, precision="int8", seed_flow=True, name="another")
    assert not again.changed
    assert canister.info().name == "another"


def test_other_weights_have_no_name_of_their_own_accord(
    canister: ModelCanister, tale: Path, tmp_path: Path
) -> None:
    upload(canister, open_checkpoint(str(tale)))
    other = write_model(tmp_path / "other", tiny_config(n_layer=2))
    for kind in ("config", "safetensors"):
        send(canister, kind, (other / FILE_NAMES[kind]).read_bytes())
    assert canister.info().name == "tale"
    canister.setup_model()
    assert canister.info().name is None
    assert told_over_http(canister) == ""


def test_what_is_no_name(canister: ModelCanister, tale: Path) -> None:
    with pytest.raises(CanisterError, match="no model"):
        canister.set_name("early")
    upload(canister, open_checkpoint(str(tale)), name=LONGEST)
    for wrong in ("", " ", "a ", "\ta", "a\nb", "a\x00b", LONGEST + "é"):
        with pytest.raises(CanisterError, match="1 to 96 characters"):
            canister.set_name(wrong)
        with pytest.raises(UsageError, match="no name for a model"):
            upload(canister, open_checkpoint(str(tale)), name=wrong)
    assert canister.info().name == LONGEST
    canister.set_name(None)
    assert canister.info().name is None


def test_a_folder_whose_name_would_steer_a_terminal(canister: ModelCanister, tmp_path: Path) -> None:
    folder = write_model(tmp_path / ("\x1b[31mred\n" + "x" * 100), tiny_config())
    upload(canister, open_checkpoint(str(folder)))
    assert canister.info().name == "[31mred" + "x" * 89

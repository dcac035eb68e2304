"""Who may do what: controller, manager, user, anyone."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_kit import new_identity, target, with_model

from icgpt import identity
from icgpt.client import ModelCanister
from icgpt.connect import connect
from icgpt.errors import RefusedError
from icgpt.identity import Identity
from icgpt.network import NetworkInfo


@pytest.fixture
def stranger(local: NetworkInfo, canister: ModelCanister, tmp_path: Path) -> ModelCanister:
    """The same canister through an identity that has no role."""
    who = new_identity(tmp_path / "stranger.pem")
    return ModelCanister(connect(target(local), who), canister.id)


def test_the_installer_is_the_first_manager(canister: ModelCanister, identity: Identity) -> None:
    assert canister.access().managers == [identity.principal]
    assert canister.is_manager(identity.principal)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.append("safetensors", b"x"),
        lambda c: c.append("config", b"x"),
        lambda c: c.append("tokenizer", b"x"),
        lambda c: c.clear("safetensors"),
        lambda c: c.store("safetensors"),
        lambda c: c.load("tokenizer"),
        lambda c: c.begin("packed", 1, bytes(32)),
        lambda c: c.write("packed", 0, b"x"),
        lambda c: c.commit("packed", bytes(32)),
        lambda c: c.discard("config"),
        lambda c: c.setup_model(),
        lambda c: c.setup_tokenizer(),
        lambda c: c.set_name("mine"),
        lambda c: c.set_precision("int8"),
        lambda c: c.set_public(True),
        lambda c: c.add_manager(b"\x04"),
        lambda c: c.add_user(b"\x04"),
        lambda c: c.remove_manager(b"\x04"),
        lambda c: c.remove_user(b"\x04"),
        lambda c: c.add_authorized_principal(b"\x04"),
    ],
)
def test_strangers_change_nothing(stranger: ModelCanister, call: object) -> None:
    before = stranger.access(), stranger.files()
    with pytest.raises(RefusedError, match="not a manager"):
        call(stranger)  # type: ignore[operator]
    assert (stranger.access(), stranger.files()) == before


def test_anyone_may_ask_what_is_missing(
    stranger: ModelCanister, canister: ModelCanister
) -> None:
    assert stranger.missing("config") is None
    canister.begin("config", 5, bytes(32))
    found = stranger.missing("config")
    assert found is not None
    assert found.missing == [(0, 5)]


def test_anonymous_callers_are_strangers(local: NetworkInfo, canister: ModelCanister) -> None:
    nobody = ModelCanister(connect(target(local), identity.anonymous()), canister.id)
    with pytest.raises(RefusedError, match="2vxsx-fae is not a manager"):
        nobody.append("config", b"{}")
    assert nobody.length("config") == 0


def test_public_mode_and_users(
    stranger: ModelCanister, canister: ModelCanister, tiny: Path
) -> None:
    with_model(canister, tiny)
    canister.set_public(False)
    for ask in (
        lambda: stranger.infer([1], 1, 0),
        lambda: stranger.generate("x", 1, 0),
        lambda: stranger.complete([1]),
        lambda: stranger.submit([1]),
        lambda: stranger.logits([1]),
        lambda: stranger.score([1], [2]),
        lambda: stranger.cancel(b""),
    ):
        with pytest.raises(RefusedError, match="may not use this model"):
            ask()
    principal = stranger.agent.identity.principal
    canister.add_user(principal)
    assert len(stranger.infer([1], 1, 0)) == 1
    canister.remove_user(principal)
    with pytest.raises(RefusedError):
        stranger.infer([1], 1, 0)
    canister.set_public(True)
    assert len(stranger.infer([1], 1, 0)) == 1


def test_managers_come_and_go(stranger: ModelCanister, canister: ModelCanister) -> None:
    principal = stranger.agent.identity.principal
    canister.add_manager(principal)
    stranger.append("config", b"{}")
    canister.remove_manager(principal)
    with pytest.raises(RefusedError):
        stranger.append("config", b"{}")


def test_anonymous_is_no_manager(canister: ModelCanister) -> None:
    before = canister.access()
    for add in (canister.add_manager, canister.add_authorized_principal):
        with pytest.raises(RefusedError, match="public mode"):
            add(b"\x04")
    assert canister.access() == before


def test_a_controller_needs_no_list(canister: ModelCanister, identity: Identity) -> None:
    canister.remove_manager(identity.principal)
    assert canister.access().managers == []
    canister.add_manager(identity.principal)


def test_a_job_belongs_to_its_owner(
    stranger: ModelCanister, canister: ModelCanister, tiny: Path
) -> None:
    from icgpt.errors import CanisterError

    with_model(canister, tiny)
    job = canister.submit([1], max_new_tokens=3, temperature=0)
    with pytest.raises(CanisterError, match="no such job"):
        stranger.poll(job)
    with pytest.raises(CanisterError, match="no such job"):
        stranger.cancel(job)


def test_only_the_canister_continues_its_own_work(canister: ModelCanister) -> None:
    with pytest.raises(RefusedError, match="only the canister itself"):
        canister.agent.update(canister.id, "continue_work", b"DIDL\x00\x00")

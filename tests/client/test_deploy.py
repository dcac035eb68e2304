"""Deployment: in one message or in chunks, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_kit import ROOT, target

from icgpt import built
from icgpt import deploy as room
from icgpt.agent import Agent
from icgpt.certificate import MAINNET_ROOT_KEY
from icgpt.client import ModelCanister
from icgpt.connect import Network, connect
from icgpt.deploy import deploy, find_wasm, read_wasm
from icgpt.errors import IcgptError, RejectedError, UsageError
from icgpt.identity import anonymous
from icgpt.network import NetworkInfo
from icgpt.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "dfx.json").write_text("{}")
    return Project(tmp_path)


def test_a_large_module_goes_in_chunks(
    agent: Agent,
    local: NetworkInfo,
    project: Project,
    wasm: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "ONE_MESSAGE_BYTES", 1000)
    monkeypatch.setattr(room, "CHUNK_BYTES", 500_000)
    said: list[str] = []
    done = deploy(agent, target(local), project, "model", wasm, say=said.append)
    assert agent.module_hash(done.canister_id) == done.module_hash
    assert [line.split()[0] for line in said] == ["Creating", "Installing"]
    assert ModelCanister(agent, done.canister_id).access().public
    again = deploy(agent, target(local), project, "model", wasm, "upgrade")
    assert (again.action, again.created, again.made_public) == ("upgrade", False, False)


def test_one_canister_under_two_names(
    agent: Agent, local: NetworkInfo, project: Project, canister: ModelCanister, wasm: bytes
) -> None:
    done = deploy(agent, target(local), project, "other", wasm, canister_id=canister.id)
    assert (done.action, done.created) == ("none", False)
    assert project.resolve("other", "local") == canister.id


def test_strangers_may_not_install(
    local: NetworkInfo, project: Project, canister: ModelCanister, wasm: bytes
) -> None:
    with connect(target(local), anonymous()) as stranger, pytest.raises(RejectedError) as caught:
        deploy(stranger, target(local), project, "m", wasm, "reinstall", canister_id=canister.id)
    assert caught.value.exit_code == 4


def test_a_module_that_the_network_refuses(
    agent: Agent, local: NetworkInfo, project: Project
) -> None:
    with pytest.raises(RejectedError):
        deploy(agent, target(local), project, "model", b"\x00asm\x01\x00\x00\x00\xff\xff")


def test_a_canister_that_is_not_there(
    agent: Agent, local: NetworkInfo, project: Project, wasm: bytes
) -> None:
    with pytest.raises(UsageError, match="there is no canister"):
        deploy(agent, target(local), project, "m", wasm, canister_id=b"\x00" * 8 + b"\x01\x01")


@pytest.mark.parametrize("name", ["", "a b", "../x", "rrkah-fqaaa-aaaaa-aaaaq-cai"])
def test_names_that_no_canister_may_have(
    agent: Agent, local: NetworkInfo, project: Project, wasm: bytes, name: str
) -> None:
    with pytest.raises(UsageError, match="no name"):
        deploy(agent, target(local), project, name, wasm)


def test_mainnet_canisters_are_not_created(agent: Agent, project: Project, wasm: bytes) -> None:
    mainnet = Network("ic", "https://icp-api.io", MAINNET_ROOT_KEY)
    with pytest.raises(UsageError, match="costs cycles") as caught:
        deploy(agent, mainnet, project, "model", wasm)
    assert "--canister-id" in (caught.value.hint or "")


def test_where_modules_come_from(project: Project, tmp_path: Path) -> None:
    chosen = tmp_path / "x.wasm"
    assert find_wasm(project, chosen) == chosen
    built = tmp_path / "canister" / "build" / "model.wasm.gz"
    built.parent.mkdir(parents=True)
    built.write_bytes(b"\x1f\x8b")
    assert find_wasm(project) == built
    assert read_wasm(built) == b"\x1f\x8b"
    for name, data, word in (("a", b"", "no WebAssembly"), ("b", b"\x7fELF", "no WebAssembly")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match=word):
            read_wasm(tmp_path / name)
    with pytest.raises(UsageError, match="can't read"):
        read_wasm(tmp_path / "none")


def test_no_module_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outside = find_wasm(Project(None))
    assert outside == ROOT / "canister" / "build" / "model.wasm.gz"
    monkeypatch.setattr(built, "__file__", str(tmp_path / "built.py"))
    with pytest.raises(IcgptError, match="not built yet"):
        find_wasm(Project(None))

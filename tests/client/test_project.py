"""Canister names: read from and written to the files that dfx and icp keep."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from icgpt.errors import ProjectError, UnknownCanisterError
from icgpt.principal import from_text
from icgpt.project import Project, find

ID = "rrkah-fqaaa-aaaaa-aaaaq-cai"
OTHER = "ryjl3-tyaaa-aaaaa-aaaba-cai"
MANAGED = "canisters: []\n"
CONNECTED = "networks:\n  - name: local\n    mode: connected\n    url: http://127.0.0.1:4943\n"


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICGPT_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path / "config"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_project_is_found_from_below(tmp_path: Path) -> None:
    write(tmp_path / "dfx.json", "{}")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find(below) == Project(tmp_path.resolve())


def test_ids_written_by_the_tools_are_read(tmp_path: Path) -> None:
    project = Project(tmp_path)
    write(tmp_path / ".dfx/local/canister_ids.json", json.dumps({"a": {"local": ID}}))
    write(tmp_path / "canister_ids.json", json.dumps({"a": {"ic": OTHER}}))
    write(tmp_path / ".icp/cache/mappings/local.ids.json", json.dumps({"b": OTHER}))
    write(tmp_path / ".icp/data/mappings/ic.ids.json", json.dumps({"c": ID}))
    assert project.resolve("a", "local") == from_text(ID)
    assert project.resolve("a", "ic") == from_text(OTHER)
    assert project.resolve("b", "local") == from_text(OTHER)
    assert project.resolve("c", "ic") == from_text(ID)
    assert project.resolve(ID, "local") == from_text(ID)
    assert project.lookup("c", "local") is None


def test_ids_are_written_where_the_tools_look(tmp_path: Path) -> None:
    project = Project(tmp_path)
    write(tmp_path / "dfx.json", "{}")
    write(tmp_path / "icp.yaml", MANAGED)
    write(tmp_path / ".dfx/local/canister_ids.json", json.dumps({"other": {"local": OTHER}}))
    project.remember("model", "local", from_text(ID))
    project.remember("model", "ic", from_text(OTHER))

    def read(name: str) -> object:
        return json.loads((tmp_path / name).read_text())

    assert read(".dfx/local/canister_ids.json") == {
        "other": {"local": OTHER},
        "model": {"local": ID},
    }
    assert read("canister_ids.json") == {"model": {"ic": OTHER}}
    assert read(".icp/cache/mappings/local.ids.json") == {"model": ID}
    assert read(".icp/data/mappings/ic.ids.json") == {"model": OTHER}
    assert project.resolve("model", "local") == from_text(ID)


def test_a_full_disk_leaves_the_ids_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "dfx.json", "{}")
    ids = write(tmp_path / ".dfx/local/canister_ids.json", json.dumps({"model": {"local": ID}}))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProjectError, match="No space left"):
        Project(tmp_path).remember("model", "local", from_text(OTHER))
    assert Project(tmp_path).resolve("model", "local") == from_text(ID)
    assert list(ids.parent.iterdir()) == [ids]


def test_a_network_that_icp_only_connects_to(tmp_path: Path) -> None:
    write(tmp_path / "icp.yaml", CONNECTED)
    (written,) = Project(tmp_path).remember("model", "local", from_text(ID))
    assert written == tmp_path / ".icp/data/mappings/local.ids.json"
    assert Project(tmp_path).resolve("model", "local") == from_text(ID)


def test_outside_of_any_project(config: Path) -> None:
    project = Project(None)
    (written,) = project.remember("model", "local", from_text(ID))
    assert written == config / "canister_ids.json"
    assert project.resolve("model", "local") == from_text(ID)
    url = "http://127.0.0.1:8000"
    assert project.lookup("model", url) is None
    project.remember("model", url, from_text(OTHER))
    assert project.resolve("model", url) == from_text(OTHER)
    assert project.resolve("model", "local") == from_text(ID)


@pytest.mark.parametrize("name", ["none", "../../etc/passwd", "", "a b", ID[:-1] + "x"])
def test_names_that_mean_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownCanisterError):
        Project(tmp_path).resolve(name, "local")


def test_a_mistyped_id_is_called_that(tmp_path: Path) -> None:
    with pytest.raises(UnknownCanisterError, match="checksum"):
        Project(tmp_path).resolve("rrkah-fqaaa-aaaaa-baaaq-cai", "local")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"model": {"local": "nonsense"}}', "\x00", " " * (2 << 20), "[" * 10**5]
)
def test_damaged_files(tmp_path: Path, text: str) -> None:
    write(tmp_path / ".dfx/local/canister_ids.json", text)
    with pytest.raises(ProjectError):
        Project(tmp_path).resolve("model", "local")


@pytest.mark.parametrize("text", ["a: [", "- 1", "networks: 7", "networks: [7]"])
def test_a_damaged_icp_yaml(tmp_path: Path, text: str) -> None:
    write(tmp_path / "icp.yaml", text)
    try:
        Project(tmp_path).remember("model", "local", from_text(ID))
    except ProjectError:
        return
    assert Project(tmp_path).resolve("model", "local") == from_text(ID)

"""A fleet on the command line: deployed, given a model, asked, and short of one canister."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_kit import ALPHABET, WASM, Cli, characters
from model_kit import tiny_config, write_model

from icgpt import candid, fleet_members
from icgpt.candid import PRINCIPAL, Record
from icgpt.client import ModelCanister
from icgpt.fleet import Fleet
from icgpt.principal import MANAGEMENT, to_text

NAMES = ("model", "model-2", "model-3")
ASKED = ("generate", "ROMEO:", "-n", "6", "-t", "0.8", "--seed", "7")


@pytest.fixture
def fleet(icgpt: Cli, tmp_path: Path) -> Cli:
    """Three canisters with a tiny model."""
    icgpt("deploy", "--wasm", str(WASM), "--replicas", "3")
    icgpt("upload", "model", str(characters(tmp_path / "characters")))
    return icgpt


def stop(name: str) -> None:
    manage("stop_canister", name)


def start(name: str) -> None:
    manage("start_canister", name)


def manage(method: str, name: str) -> None:
    with ModelCanister.connect(name) as model:
        arg = candid.encode([Record({"canister_id": PRINCIPAL})], [{"canister_id": model.id}])
        model.agent.update(MANAGEMENT, method, arg, model.id)


def test_deploying_again_changes_nothing(icgpt: Cli) -> None:
    wasm = ("--wasm", str(WASM))
    first = icgpt.json("deploy", *wasm, "--replicas", "2")
    assert [one["canister"] for one in first["replicas"]] == ["model", "model-2"]
    assert len({one["canister_id"] for one in first["replicas"]}) == 2
    ids = icgpt("deploy", *wasm, "--replicas", "3").split()
    assert ids[:2] == [one["canister_id"] for one in first["replicas"]]
    assert "3 canisters answer to 'model'; 1 of them got other code." in icgpt.err
    again = icgpt.json("deploy", *wasm)
    assert [one["canister_id"] for one in again["replicas"]] == ids
    assert {(one["action"], one["created"]) for one in again["replicas"]} == {("none", False)}
    assert icgpt.json("status", "-c", "model-3")["canister_id"] == ids[2]
    assert list(icgpt.json("status")["fleet"].values()) == ids
    assert "model, model-2, model-3; this is the first of them" in icgpt("status")
    assert "fleet" not in icgpt.json("status", "-c", "model-3")
    alone = icgpt.json("deploy", *wasm, "--replicas", "1")
    assert "replicas" not in alone
    assert "canister_id" in icgpt.json("deploy", *wasm)
    icgpt("deploy", *wasm, "--replicas", "2", "--canister-id", ids[0], code=2)


def test_each_gets_the_model_and_its_turn(fleet: Cli, tmp_path: Path) -> None:
    model = str(tmp_path / "characters")
    again = fleet.json("upload", "model", model)
    assert list(again["replicas"]) == ["model", "model-2", "model-3"]
    assert not any(one["changed"] for one in again["replicas"].values())
    done = fleet.json(*ASKED)
    alone = fleet.json(*ASKED, "-c", done["canister"])
    assert (alone["text"], "canister" in alone) == (done["text"], False)
    assert fleet(*ASKED, "--stats") == fleet(*ASKED, "--no-stream")
    assert fleet.json("infer", "1", "2")["canister"]
    fleet(*ASKED, "--stats")
    assert re.search(r"; by [a-z0-9-]{27}$", fleet.err)


def test_another_one_writes_where_one_is_stopped(
    fleet: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_members, "in_any_order", dict)
    text = fleet(*ASKED)
    stop("model")
    assert fleet(*ASKED) == text
    assert fleet.err.startswith("model does not take it (")
    fleet(*ASKED, "-c", "model-2")
    fleet(*ASKED, "--receipt", "r.json")
    assert fleet.json("verify", "r.json")["text"] + "\n" == text
    for name in ("model-2", "model-3"):
        stop(name)
    error = fleet.json(*ASKED, code=4)["error"]
    assert error["kind"] == "no_canister_left"
    assert list(error["tried"]) == ["model", "model-2", "model-3"]


def test_all_of_them_let_the_same_people_in(icgpt: Cli) -> None:
    icgpt("deploy", "--wasm", str(WASM), "--replicas", "2")
    icgpt("access", "public", "off")
    icgpt("access", "add", "2vxsx-fae")
    icgpt("access", "quotas", "--queue", "7")
    for name in ("model", "model-2"):
        shown = icgpt.json("access", "list", "-c", name)
        assert (shown["public"], shown["users"]) == (False, ["2vxsx-fae"])
        assert icgpt.json("access", "quotas", "-c", name)["queue"] == 7
    icgpt("access", "remove", "2vxsx-fae")
    assert icgpt.json("access", "list", "-c", "model-2")["users"] == []
    stop("model-2")
    error = icgpt.json("access", "add", "2vxsx-fae", code=1)["error"]
    assert (error["kind"], error["done"], list(error["failed"])) == (
        "fleet",
        ["model"],
        ["model-2"],
    )
    assert "1 of 2 canisters did not take the change (model-2: " in error["message"]
    assert icgpt.json("access", "list")["users"] == ["2vxsx-fae"]
    icgpt("access", "remove", "2vxsx-fae", "--identity", "anonymous", code=1)


def test_those_who_ask_once_each_ask_all_of_them(fleet: Cli) -> None:
    random.seed(7)
    asked = {fleet.json("infer", "1")["canister"] for _ in range(20)}
    assert len(asked) == 3


def test_a_conversation_stays_with_one(fleet: Cli, tmp_path: Path) -> None:
    def talk(text: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "icgpt", "chat", "-n", "3", "--seed", "1", "--json"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    said = talk("A\n\n\n\n\n")
    assert len({one["canister"] for one in said}) == 1
    ids = {name: fleet.json("status", "-c", name)["canister_id"] for name in NAMES}
    (who,) = [name for name, one in ids.items() if one == said[0]["canister"]]
    stop(who)
    assert [one["text"] for one in talk("A\n\n")] == [one["text"] for one in said[:2]]
    # The text's windows and the answers that are measured are shared by those that are left.
    (tmp_path / "text.txt").write_text("Now is the winter of our discontent" * 3)
    text = str(tmp_path / "text.txt")
    left = next(name for name in NAMES if name != who)
    assert fleet.json("eval", text) == fleet.json("eval", text, "-c", left)
    assert fleet.json("tokenize", "AB") == fleet.json("tokenize", "AB", "-c", left)
    short = ("bench", "-n", "4", "--prompt-tokens", "4", "--rounds", "1", "--jobs", "4")
    assert fleet.json(*short)["canisters"] == 3
    assert "spread over 3 canisters" in fleet.err


def test_one_without_a_model_is_not_asked(icgpt: Cli, tmp_path: Path) -> None:
    icgpt("deploy", "--wasm", str(WASM), "--replicas", "2")
    icgpt("bench", code=2)
    assert "the canister has no model yet" in icgpt.err
    other = icgpt.json("status", "-c", "model-2")["canister_id"]
    icgpt("upload", other, str(characters(tmp_path / "characters")))
    random.seed(3)
    for _ in range(3):
        icgpt("bench", "-n", "4", "--prompt-tokens", "4", "--rounds", "1")


def test_python_finds_the_fleet_by_its_name(fleet: Cli) -> None:
    with Fleet.connect("model") as found:
        ids = {to_text(found.complete("A", max_new_tokens=1).canister or b"") for _ in range(3)}
    assert ids == {fleet.json("status", "-c", f"model{n}")["canister_id"] for n in ("", "-2", "-3")}
    with Fleet.connect("model-2") as alone:
        assert len(alone.members.all) == 1


def test_one_that_fails_loses_the_others_nothing(fleet: Cli, tmp_path: Path) -> None:
    before = fleet.json("status")["model"]["layout_sha256"]
    config = tiny_config(n_embd=16, vocab_size=len(ALPHABET))
    other = str(write_model(tmp_path / "other", config))
    stop("model-2")
    error = fleet.json("upload", "model", other, code=1)["error"]
    assert error["kind"] == "fleet"
    assert error["done"] == ["model", "model-3"]
    assert list(error["failed"]) == ["model-2"]
    assert error["failed"]["model-2"]["kind"] == "rejected"
    assert "1 of 3 canisters did not get the model (model-2: " in error["message"]
    said = fleet.err
    for name in error["done"]:
        assert f"{name}: Sending" in said
        assert f"{name}: Setting up" in said
        assert fleet.json("status", "-c", name)["model"]["layout_sha256"] != before
    start("model-2")
    done = fleet.json("upload", "model", other)["replicas"]
    assert {name: one["changed"] for name, one in done.items()} == {
        "model": False, "model-2": True, "model-3": False
    }  # fmt: skip
    # Where all fail alike, one reason is enough.
    fleet("upload", "model", str(tmp_path / "characters"), "--identity", "anonymous", code=4)
    assert "of 3 canisters" not in fleet.err

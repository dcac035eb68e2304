"""`icgpt generate --receipt` and `icgpt verify`, on the local network and without any."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_kit import Cli, characters

from icgpt import connect, trust
from icgpt.certificate import MAINNET_ROOT_KEY
from icgpt.errors import UsageError
from icgpt.network import NetworkInfo
from icgpt.transport import Transport

ASKED = ("generate", "ROMEO:", "-n", "12", "-t", "0.8", "--seed", "7")


@pytest.fixture
def kept(deployed: Cli, tmp_path: Path) -> Path:
    """A receipt of a tiny model's answer."""
    deployed("upload", "model", str(characters(tmp_path / "characters")))
    deployed(*ASKED, "--receipt", "romeo.json")
    return deployed.folder / "romeo.json"


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def perform(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(Transport, "perform", perform)


def change(path: Path, change: Callable[[dict], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_receipt_is_checked_without_a_network(
    kept: Path, deployed: Cli, local: NetworkInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = deployed(*ASKED)
    status = deployed.json("status")
    offline(monkeypatch)
    shown = deployed.json("verify", "romeo.json")
    assert shown["text"] + "\n" == text
    assert (shown["prompt"], shown["seed"], shown["network"]) == ("ROMEO:", 7, "local")
    assert shown["options"]["temperature"] == 0.8
    assert shown["canister"] == status["canister_id"]
    assert shown["module_hash"] == status["module_hash"]
    assert shown["model"] == status["model"]["layout_sha256"]
    assert shown["replayed"] is None
    said = deployed("verify", "romeo.json")
    for words in (shown["canister"], shown["module_hash"], shown["asked_at"], '"ROMEO:"'):
        assert words in said
    assert json.dumps(shown["text"], ensure_ascii=False) in said
    assert deployed.err == "The receipt holds.\n"

    key = deployed.folder / "key"
    for content in (local.root_key, local.root_key.hex().encode() + b"\n"):
        key.write_bytes(content)
        assert deployed.json("verify", "romeo.json", "--root-key", "key")["text"] == shown["text"]
    given = deployed.json("verify", "romeo.json", "--root-key", local.root_key.hex())
    assert (given["network"], given["root_key"]) == (None, local.root_key.hex())


def test_what_does_not_hold_ends_with_5(
    kept: Path, deployed: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = kept.read_text()
    offline(monkeypatch)
    assert deployed.json(
        "verify", "romeo.json", "--root-key", MAINNET_ROOT_KEY.hex(), code=5
    )["error"]["kind"] == "verification"  # fmt: skip
    change(kept, lambda one: one["shows"].update(text="A horse!"))
    deployed("verify", "romeo.json", code=5)
    assert "what the receipt shows is not what it proves" in deployed.err
    kept.write_text(whole)
    change(kept, lambda one: one.update(network="ic"))
    deployed("verify", "romeo.json", code=5)
    kept.write_text(whole)
    change(kept, lambda one: one["shows"].update(module_hash="00" * 32))
    deployed("verify", "romeo.json", code=5)
    kept.write_text(whole[: len(whole) // 2])
    deployed("verify", "romeo.json", code=5)
    kept.write_text(whole)
    deployed("verify", "romeo.json")


def test_it_is_replayed_on_the_canister(kept: Path, deployed: Cli, tmp_path: Path) -> None:
    assert deployed.json("verify", "romeo.json", "--replay")["replayed"] == "canister"
    assert "Written again, the answer is the same." in deployed.err
    deployed("upload", "model", "shakespeare-char")
    deployed("verify", "romeo.json", "--replay", code=5)
    assert "runs another model now" in deployed.err
    deployed("verify", "romeo.json")


def test_it_is_replayed_here(
    kept: Path, deployed: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch)
    local = ("--replay", "--local", str(tmp_path / "characters"))
    assert deployed.json("verify", "romeo.json", *local)["replayed"] == "here"
    deployed("verify", "romeo.json", *local, "--precision", "int8", code=5)
    deployed("verify", "romeo.json", "--replay", "--local", "shakespeare-char", code=5)
    assert "is not the model of the receipt" in deployed.err
    deployed("verify", "romeo.json", *local[1:], code=2)


def test_it_comes_with_every_way_of_printing(kept: Path, deployed: Cli) -> None:
    streamed = deployed(*ASKED, "--receipt", "1.json")
    assert "icgpt verify 1.json" in deployed.err
    assert deployed(*ASKED, "--no-stream", "--receipt", "2.json") == streamed
    value = deployed.json(*ASKED, "--receipt", "3.json", "--echo", "--stats")
    assert value["text"] == "ROMEO:" + streamed.removesuffix("\n")
    for name in ("1.json", "2.json"):
        assert deployed.json("verify", name)["text"] + "\n" == streamed
    assert deployed.json("verify", "3.json")["text"] == value["text"]
    deployed(*ASKED, "--receipt", ".", code=2)


def test_bad_files_and_keys(alone: None, tmp_path: Path, icgpt: Cli) -> None:
    icgpt("verify", "absent.json", code=2)
    (icgpt.folder / "note.txt").write_text("{}")
    icgpt("verify", "note.txt", code=5)
    assert "no receipt of icgpt" in icgpt.err
    for text in ("absent", "00", ".", "\0", "note.txt"):
        with pytest.raises(UsageError):
            trust.read_root_key(text)


def test_a_key_that_nobody_knows_is_not_asked_for(
    alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch)
    assert trust.known_root_key("ic") == MAINNET_ROOT_KEY
    for name in ("local", "https://example.org", "http://127.0.0.1:1", "no network"):
        with pytest.raises(UsageError):
            trust.known_root_key(name)
    connect.pin("https://example.org", MAINNET_ROOT_KEY)
    assert trust.known_root_key("https://example.org") == MAINNET_ROOT_KEY


def test_token_ids_are_proven_too(kept: Path, deployed: Cli) -> None:
    asked = ("infer", "3", "4", "-n", "5", "-t", "0.7", "--seed", "2")
    ids = deployed(*asked, "--receipt", "ids.json")
    assert "icgpt verify ids.json" in deployed.err
    assert ids == deployed(*asked)
    shown = deployed.json("verify", "ids.json", "--replay")
    assert shown["token_ids"] == [int(one) for one in ids.split()]
    assert shown["prompt"] == shown["prompt_ids"] == [3, 4]
    again = deployed.json(*asked, "--receipt", "ids.json")
    assert again["token_ids"] == shown["token_ids"]
    shown = deployed.json("verify", "ids.json")
    assert (again["job"], again["canister"]) == (shown["job"], shown["canister"])


@pytest.mark.parametrize("command", [ASKED, ("infer", "1")])
def test_a_receipt_takes_the_place_of_nothing_else(
    kept: Path, deployed: Cli, command: tuple[str, ...]
) -> None:
    other = deployed.folder / "thesis.txt"
    other.write_text("years of work")
    deployed(*command, "--receipt", "thesis.txt", code=2)
    assert "holds something else" in deployed.err
    assert other.read_text() == "years of work"
    deployed(*command, "--receipt", "nowhere/r.json", code=2)
    assert "there is no folder nowhere" in deployed.err
    deployed(*command, "--receipt", "romeo.json")

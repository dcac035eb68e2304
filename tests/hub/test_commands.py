"""`icgpt push`, `icgpt pull` and `icgpt space` as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer

from icgpt.cli import run


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICGPT_CONFIG_DIR", str(tmp_path / "config"))


class Said:
    """What a command printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.err = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        self.capsys.readouterr()
        found = run(arguments)
        out, self.err = self.capsys.readouterr()
        assert found == code, self.err
        return out

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))


@pytest.fixture
def icgpt(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


@pytest.mark.usefixtures("story")
def test_a_dry_run_sends_nothing(icgpt: Said, hub: HubServer) -> None:
    said = icgpt("push", "story", "me/story", "--private", "--dry-run")
    assert "model.safetensors  5.5 MB\n" in said
    assert "to the model me/story, branch main (private, when it is made)" in said
    assert icgpt.err == "Not sent: .env, LICENSE, notes.txt, state.pt\n"
    told = icgpt.json("push", "story", "me/story", "--dry-run")
    assert told["files"]["model.safetensors"] == 5_469_776
    assert (told["sent"], told["left_out"][0]) == (False, ".env")
    assert not hub.repositories


@pytest.mark.usefixtures("story")
def test_there_and_back(icgpt: Said, hub: HubServer) -> None:
    assert icgpt("push", "story", "me/story", "--message", "Hello") == f"{hub.url}/me/story\n"
    assert "Sending 5.5 MB to me/story" in icgpt.err
    assert hub.repositories["models/me/story"].messages == ["Hello"]
    told = icgpt.json("pull", "me/story", "--out", "back")
    assert (told["folder"], told["parameters"]) == ("back", 2_731_200)
    assert "is there already" in str(icgpt.json("pull", "me/story", code=1)["error"])


def test_a_space(icgpt: Said, hub: HubServer) -> None:
    assert icgpt("space", "shakespeare-char", "--out", "space") == "space\n"
    assert "title='shakespeare-char'" in Path("space/app.py").read_text()
    said = icgpt("space", "me/story", "--out", "two", "--revision", "v1", "--push", "me/page")
    assert said == f"{hub.url}/spaces/me/page\n"
    app = (hub.folder("spaces/me/page") / "app.py").read_text()
    assert "run('me/story', revision='v1', title='story')" in app
    told = icgpt.json("space", "me/story", "--out", "three", "--push", "me/more", "--dry-run")
    assert (told["kind"], told["sent"]) == ("space", False)
    assert list(hub.repositories) == ["spaces/me/page"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["push", "story", "story"], "no name on the hub"),
        (["pull", "story"], "no name on the hub"),
        (["space", "shakespeare-char"], "--out"),
        (["space", "shakespeare-char", "--out", "x", "--private"], "go with --push"),
        (["space", "shakespeare-char", "--out", "x", "--push", "x"], "no name on the hub"),
    ],
)
def test_usage_errors(arguments: list[str], word: str, icgpt: Said) -> None:
    icgpt(*arguments, code=2)
    assert word in icgpt.err


def test_what_is_not_there(icgpt: Said, hub: HubServer) -> None:
    icgpt("push", "nothing", "me/story", code=1)
    assert "nothing doesn't exist" in icgpt.err
    icgpt("pull", "me/nothing", code=1)
    assert "no model me/nothing" in icgpt.err

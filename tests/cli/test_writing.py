"""Ctrl-C while the model writes: the job ends in the canister too."""

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

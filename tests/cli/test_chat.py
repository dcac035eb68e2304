"""`icgpt chat` on a real canister, through a pipe and in a terminal."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Cli, characters
from terminal import CTRL_C, terminal

from icgpt.identity import config_dir

CTRL_D, UP = "\x04", "\x1b[A"


def instruct(folder: Path) -> Path:
    """The tiny model of characters, with a template; its context of 16 stops."""
    characters(folder)
    config = json.loads((folder / "config.json").read_text())
    config["icgpt"] = {"template": {"prefix": [1], "suffix": [2], "stop": [3]}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def ready(deployed: Cli, tmp_path: Path) -> Cli:
    """With a plain model whose context slides."""
    deployed("upload", "model", str(characters(tmp_path / "chars")))
    return deployed


def piped(text: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "icgpt", "chat", *arguments],
        input=text,
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def answers(text: str, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in piped(text, *arguments, "--json").stdout.splitlines()]


def test_piped_lines_are_answered_one_by_one(ready: Cli) -> None:
    first, second, third = answers("ROMEO:\n\nJULIET:\n", "-n", "5", "--seed", "1")
    assert [one["you"] for one in (first, second, third)] == ["ROMEO:", "", "JULIET:"]
    # Each request is the whole transcript.
    assert (
        first["text"]
        == ready.json("generate", "ROMEO:", "-n", "5", "-t", "0.8", "--seed", "1")["text"]
    )
    transcript = "ROMEO:" + first["text"]
    assert second["prompt_tokens"] == len(transcript)
    assert (
        second["text"]
        == ready.json("generate", transcript, "-n", "5", "-t", "0.8", "--seed", "1")["text"]
    )
    texts = [first["text"], second["text"], third["text"]]
    said = piped("ROMEO:\n\nJULIET:\n", "-n", "5", "--seed", "1")
    assert said.stdout == "".join(text if text.endswith("\n") else text + "\n" for text in texts)
    assert "oldest" in said.stderr
    assert said.stderr.count("\n") <= 2


def test_a_template_is_put_round_each_turn(deployed: Cli, tmp_path: Path) -> None:
    deployed("upload", "model", str(instruct(tmp_path / "instruct")))
    first, second = answers("ab\ncd\n", "-n", "3", "--seed", "5", "-t", "1")
    assert first["prompt_tokens"] == len("ab") + 2
    alone = deployed.json("generate", "ab", "-n", "3", "--seed", "5", "-t", "1")
    assert first["token_ids"] == alone["token_ids"]
    ended = first["token_ids"][-1] == 3
    assert second["prompt_tokens"] == 4 + len(first["token_ids"]) + (not ended) + 4
    said = piped("ab\n", "-n", "3", "--seed", "5", "-t", "1")
    assert ("/set max_new_tokens" in said.stderr) == (alone["finish"] == "length")
    assert "at once" in piped("a" * 99, code=2).stderr


def test_commands(ready: Cli, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    script = f"""/set
/set max-new-tokens 4
/set stop "\\\\n\\\\n" x
/set seed 9
/set seed default
one
//two
/retry
/save {kept}
/set
/clear
three
/exit
four
"""
    done = piped(script, "-t", "0")
    assert f"Kept in {kept}, 2 turns." in done.stderr
    value = json.loads(kept.read_text())
    assert [turn["you"] for turn in value["turns"]] == ["one", "/two"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    lines = [line.split() for line in done.stderr.splitlines()]
    assert ["max_new_tokens", "200"] in lines
    assert ["max_new_tokens", "4"] in lines
    assert ["stop", "'\\n\\n',", "'x'"] in lines
    assert lines.count(["seed", "default"]) == 2
    (first, *_) = answers("three\n", "-t", "0", "-n", "4", "--load", str(kept))
    assert first["prompt_tokens"] == 12, "the end of a transcript that is longer than the context"
    piped(f"/load {kept}\n/save {kept}\n")
    assert json.loads(kept.read_text()) == value
    roles = answers("hi\n", "--roles", "A,B", "-n", "3")
    assert roles[0]["prompt_tokens"] == len("A:\nhi\n\nB:\n")


def test_each_answer_is_proven(ready: Cli) -> None:
    said = answers("ROMEO:\n\n", "-n", "5", "--seed", "1", "--receipts", "proven")
    assert sorted(path.name for path in Path("proven").iterdir()) == [
        "answer-1.json", "answer-2.json"
    ]  # fmt: skip
    for number, one in enumerate(said, 1):
        shown = ready.json("verify", f"proven/answer-{number}.json", "--replay")
        assert (shown["text"], shown["token_ids"]) == (one["text"], one["token_ids"])
    # What was said before is in the prompt.
    assert len(shown["prompt_ids"]) == len("ROMEO:" + said[0]["text"])
    again = piped("A\n", "-n", "2", "--receipts", "proven")
    assert f"icgpt verify {Path('proven/answer-3.json')}" in again.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/nothing", "/help"),
        ("/set nothing 1", "there is no option 'nothing'"),
        ("/set canister x", "there is no option 'canister'"),
        ("/set temperature", "a value is missing"),
        ("/set temperature hot", "temperature: 'hot' is not a valid float"),
        ("/set max-new-tokens 0", "max_new_tokens: 0 is not in the range"),
        ("/set context roll", "context: 'roll'"),
        ('/set stop "x', "Close the quotation"),
        ("/retry", "nothing was asked yet"),
        ("/save", "takes one file"),
        ("/save {other}", "holds something else"),
        ("/load {other}", "holds no conversation"),
        ("/load {other}.none", "No such file"),
    ],
)
def test_a_script_ends_at_what_makes_no_sense(
    ready: Cli, tmp_path: Path, line: str, words: str
) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    done = piped(line.replace("{other}", str(other)) + "\nabc\n", code=2)
    assert words in done.stderr
    assert done.stdout == ""
    assert other.read_text() == "mine"


def test_lines_that_are_no_text(ready: Cli) -> None:
    for data in (b"\xff\xfe\n", b"x" * (1 << 20) + b"y"):
        done = subprocess.run(
            [sys.executable, "-m", "icgpt", "chat"], input=data, capture_output=True, check=False
        )
        assert done.returncode == 2
        assert b"stdin" in done.stderr


def test_models_that_cannot_be_talked_to(deployed: Cli, tiny: Path) -> None:
    deployed("chat", code=2)
    assert "icgpt upload" in deployed.err
    deployed("upload", "model", str(tiny))
    deployed("chat", code=2)
    assert "icgpt infer" in deployed.err
    deployed("chat", "--roles", "ROMEO", code=2)


def test_in_a_terminal(ready: Cli) -> None:
    with terminal("chat", "-n", "20", "-t", "1") as screen:
        assert "/help lists commands, Ctrl-D leaves." in screen.until("> ")
        screen.type("ROMEO:\n")
        screen.until("ROMEO:\n")
        screen.until("\n\n> ")
        # An answer is ended, and the prompt comes again.
        screen.type("/set max_new_tokens 30000\n")
        screen.until("> ")
        screen.type("on\n")
        screen.until("\n…")
        screen.type(CTRL_C)
        screen.until("(ended here)\n\n> ")
        # What makes no sense is told, and the prompt comes again.
        screen.type("/nothing\n")
        screen.until("/help lists what there is.\n> ")
        screen.type("/set temp\t")
        screen.until("/set temperature ")
        screen.type("0\n")
        screen.until("> ")
        screen.type("half a line")
        screen.until("half a line")
        screen.interrupt()
        screen.until("Ctrl-D or /exit leaves.\n> ")
        screen.type(UP)
        screen.until("/set temperature 0")
        screen.interrupt()
        screen.until("> ")
        screen.type(CTRL_D)
        assert screen.rest().strip() == ""
        assert screen.process.wait() == 0
    history = config_dir() / "chat_history"
    assert "ROMEO:" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_in_a_terminal_after_the_network_has_gone(ready: Cli) -> None:
    with terminal("chat", "-n", "5", NO_COLOR="1") as screen:
        screen.until("> ")
        ready("access", "public", "off")
        ready("access", "quotas", "--cycles-floor", str(2**64 - 1))
        screen.type("x\n")
        assert "cycles" in screen.until("\n> ")
        screen.type("/exit\n")
        screen.rest()
        assert screen.process.wait() == 0

"""eval, bench, cost, logs and models on a real canister; env and completion on none."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime
from cli_kit import ALPHABET, Cli, characters, typed
from model_kit import target
from terminal import terminal

from icgpt import connect, cost, deploy
from icgpt.agent import Agent
from icgpt.cli import COMMANDS, run
from icgpt.client import ModelCanister
from icgpt.deploy import EMPTY_ARGUMENT
from icgpt.identity import default_path, load
from icgpt.network import NetworkInfo
from icgpt.principal import to_text

TEXT = "Now, the winter of our discontent"


@pytest.fixture
def ready(deployed: Cli, tmp_path: Path) -> Cli:
    deployed("upload", "model", str(characters(tmp_path / "chars")))
    return deployed


def nats(model: ModelCanister, text: str, stride: int) -> float:
    """The same, one window of at most 17 tokens after the other."""
    ids = model.tokenize(text).token_ids
    total, done = 0.0, 1
    while done < len(ids):
        end = min(done + stride, len(ids))
        start = max(0, end - 17)
        total -= sum(model.score(ids[start:done], ids[done:end]))
        done = end
    return total


@pytest.mark.parametrize("stride", [1, 5, 8, 16])
def test_perplexity(ready: Cli, tmp_path: Path, stride: int) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    done = ready.json("eval", str(file), "--stride", str(stride))
    with ModelCanister.connect() as model:
        expected = nats(model, TEXT, stride)
    assert done["tokens"] == done["characters"] == done["bytes"] == len(TEXT) - 1
    assert done["nats_per_token"] * done["tokens"] == pytest.approx(expected, rel=1e-6)
    assert done["perplexity"] == pytest.approx(math.exp(done["nats_per_token"]))
    assert done["bits_per_character"] == pytest.approx(done["nats_per_character"] / math.log(2))
    if stride == 8:
        assert ready.json("eval", str(file)) == done, "half of the context is the usual stride"
        words = ready("eval", str(file))
        assert f"perplexity  {done['perplexity']:.4f}" in words
        assert ready.err == f"Scoring {len(TEXT) - 1} tokens\n"
        some = ready.json("eval", str(file), "--max-tokens", "9")
        assert (some["tokens"], some["characters"]) == (8, 8)


def test_texts_that_cannot_be_scored(ready: Cli, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    for content, words in ((b"", "no tokens"), (b"N", "one token"), (b"\xff\xfe", "not UTF-8")):
        file.write_bytes(content)
        ready("eval", str(file), code=2)
        assert words in ready.err
    ready("eval", str(tmp_path), code=2)


def test_scoring_in_a_terminal_and_from_a_pipe(ready: Cli, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    with terminal("eval", str(tmp_path / "text.txt")) as screen:
        assert "Scoring 8 of 32 tokens" in screen.until("perplexity")
        screen.rest()
    done = subprocess.run(
        [sys.executable, "-m", "icgpt", "eval", "-", "--json"],
        input=TEXT.encode(),
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == ready.json("eval", str(tmp_path / "text.txt"))


def test_speed(ready: Cli) -> None:
    done = ready.json("bench", "-n", "8", "--prompt-tokens", "4", "--jobs", "2", "--rounds", "2")
    assert (done["tokens"], done["prompt_tokens"], done["jobs"]) == (8, 4, 2)
    for name, value in done.items():
        assert value >= 0, name
    assert done["instructions_per_token"] > 1000
    words = ready("bench", "-n", "4", "--prompt-tokens", "4", "--rounds", "1")
    assert "tokens/s" in words
    assert ready.err == "Writing 2 answers\n"
    ready("bench", "-n", "10", code=2)
    assert "context of 16" in ready.err


def test_cost(ready: Cli) -> None:
    done = ready.json("cost", "--tokens", "1000", "--answer", "10", "--prompt", "5")
    work = 10 * done["instructions_per_token"] + 5 * done["instructions_per_prompt_token"]
    answer = cost.generation_cycles(work, 20)
    assert done["prices"]["an answer"]["cycles"] == answer
    assert done["prices"]["1,000 tokens"]["cycles"] == 100 * answer
    memory = done["memory_bytes"]
    assert cost.storage_cycles(memory) in [one["cycles"] for one in done["prices"].values()]
    # Only controllers are told how much memory there is.
    other = ready("cost", "--identity", "anonymous")
    assert "controllers" in ready.err
    assert "a month" not in other


def test_cost_of_what_was_measured(icgpt: Cli) -> None:
    for shape, precisions in cost.shapes().items():
        for precision in precisions:
            done = icgpt.json("cost", "--shape", shape, "--precision", precision)
            assert done["instructions_per_token"] >= precisions[precision].token
    words = icgpt("cost", "--shape", "gpt2-124m")
    assert "1,000,000 tokens" in words
    assert "a month" not in words
    icgpt("cost", "--shape", "gpt2-124m", "--precision", "f32")
    icgpt("cost", "--shape", "nothing", code=2)
    assert "gpt2-124m" in icgpt.err


def test_cost_of_an_upload(icgpt: Cli, tmp_path: Path) -> None:
    source = str(characters(tmp_path / "characters"))
    for more in ((), ("--precision", "int8"), ("--precision", "int8", "--seed-flow")):
        told = icgpt.json("cost", "--upload", source, *more)
        assert told == icgpt.json("upload", "model", source, "--dry-run", *more)
        assert told["precision"] == (more[1] if more else "f32")
    assert "USD on mainnet" in icgpt("cost", "--upload", source)
    icgpt("cost", "--upload", source, "--shape", "gpt2-124m", code=2)
    icgpt("cost", "--seed-flow", code=2)


def test_on_mainnet_it_is_asked_first(
    ready: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect.Network, "mainnet", True)
    (tmp_path / "text.txt").write_text(TEXT)
    who = ["--identity", str(default_path())]
    before = ready.json("access", "quotas", *who)["usage"]
    short = ["-n", "4", "--prompt-tokens", "4", "--rounds", "1"]
    for words in (["bench", *short], ["eval", str(tmp_path / "text.txt")]):
        command = [*words, *who]
        typed(monkeypatch, "n\n")
        ready(*command, code=1)
        assert "million cycles" in ready.err
        assert "nothing was spent" in ready.err
        assert "say --yes" in ready.json(*command, code=2)["error"]["message"]
        assert ready.json("access", "quotas", *who)["usage"] == before
        assert ready.json(*command, "--yes")


def test_prices() -> None:
    assert cost.storage_cycles(1 << 30, 1) == 127_000
    assert cost.storage_cycles(1 << 29) == 127_000 * 30 * 86_400 // 2


TALKER = """(module
  (import "ic0" "debug_print" (func $print (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (data (i32.const 0) "said once")
  (func (export "canister_update talk") (call $print (i32.const 0) (i32.const 9)) (call $reply)))"""


@pytest.fixture
def talker(icgpt: Cli, local: NetworkInfo) -> Iterator[tuple[Agent, bytes]]:
    """A canister that logs a line whenever it is called."""
    with connect.connect(target(local), load()) as agent:
        module = bytes(wasmtime.wat2wasm(TALKER))
        yield agent, deploy.new_canister(agent, target(local), module)


def test_the_log(icgpt: Cli, talker: tuple[Agent, bytes]) -> None:
    agent, canister = talker
    place = ["-c", to_text(canister)]
    assert icgpt.json("logs", *place) == {"lines": []}
    for _ in range(3):
        agent.update(canister, "talk", EMPTY_ARGUMENT)
    lines = icgpt.json("logs", *place)["lines"]
    assert [(one["index"], one["text"]) for one in lines] == [(n, "said once") for n in range(3)]
    words = icgpt("logs", "--last", "1", *place)
    assert words.split()[0] == "2"
    assert words.endswith("  said once\n")
    icgpt("logs", "--identity", "anonymous", *place, code=4)


def test_following_the_log(icgpt: Cli, talker: tuple[Agent, bytes]) -> None:
    agent, canister = talker
    process = subprocess.Popen(
        [sys.executable, "-m", "icgpt", "logs", "-c", to_text(canister), "--follow", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        for number in range(2):
            agent.update(canister, "talk", EMPTY_ARGUMENT)
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["index"] == number
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1
    finally:
        process.kill()


def test_models(ready: Cli) -> None:
    done = ready.json("models")
    small, smaller = done["built_in"]
    assert (small["name"], smaller["name"]) == ("shakespeare-bpe", "shakespeare-char")
    for one in (small, smaller):
        assert one["license"] == "mit"
        assert "Shakespeare" in one["about"]
        assert one["bytes"] < 1.1 * one["parameters"] * (1 if one is small else 2)
    (running,) = done["canisters"]  # the page's canister is none of a model
    assert running["model"]["architecture"]["vocab_size"] == len(ALPHABET)
    assert "model (" in ready("models")
    ready("deploy", "--mode", "reinstall", "--wasm", str(ready.folder / "x"), code=2)


def test_jobs(ready: Cli) -> None:
    assert ready("jobs") == "no jobs\n"
    with ModelCanister.connect() as model:
        model.call("set_per_message", 1_000_000)  # so that they can be watched
        first, second = (model.submit("A", max_new_tokens=3000, seed=one) for one in (1, 2))
        found = ready.json("jobs")
        assert [one["job"] for one in found] == [first.hex(), second.hex()]
        assert all(one["tokens"] < one["max_tokens"] == 3000 for one in found)
        assert f"{first.hex()[:12]}  running  " in ready("jobs")
        assert "ended" in ready("jobs", "--cancel", first.hex()[:12])
        assert model.poll(first).finish == "cancelled"
        ready("jobs", "--cancel", first.hex(), code=2)
        assert "no job" in ready.err
        (ended,) = ready.json("jobs", "--cancel", "all")
        assert ended["job"] == second.hex()
        assert ready.json("jobs") == []


def test_models_where_there_is_nothing(icgpt: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "none is known here" in icgpt("models")
    ids = icgpt.folder / ".dfx/local/canister_ids.json"
    ids.parent.mkdir(parents=True)
    ids.write_text(json.dumps({"gone": {"local": "rrkah-fqaaa-aaaaa-aaaaq-cai"}}))
    (gone,) = icgpt.json("models")["canisters"]
    assert gone["model"] is None
    monkeypatch.setenv("ICGPT_STATE_DIR", str(icgpt.folder / "nothing"))
    assert "shakespeare-char" in icgpt("models")
    assert "isn't running" in icgpt.err


@pytest.mark.usefixtures("alone")
def test_a_report_holds_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ICGPT_GENERATE_STOP", "a secret")
    assert run(["env", "--json"]) == 0
    said = capsys.readouterr().out
    done = json.loads(said)
    assert done["state"] == "~/state"
    assert done["network"] == "not running"
    assert done["variables"] == ["ICGPT_CONFIG_DIR", "ICGPT_GENERATE_STOP", "ICGPT_STATE_DIR"]
    assert "a secret" not in said
    assert str(tmp_path) not in said
    assert run(["env"]) == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_the_shell_takes(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_ICGPT_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_what_is_completed(ready: Cli) -> None:
    def complete(*words: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "icgpt"],
            env={
                **os.environ,
                "_ICGPT_COMPLETE": "bash_complete",
                "COMP_WORDS": " ".join(["icgpt", *words]),
                "COMP_CWORD": str(len(words)),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        return [line.split(",", 1)[1] for line in done.stdout.splitlines()]

    assert complete("") == list(COMMANDS)
    assert complete("ge") == ["generate"]
    assert complete("generate", "--temp") == ["--temperature", "--template"]
    assert complete("status", "-c", "") == ["frontend", "model"]
    assert complete("upload", "") == ["frontend", "model"]
    assert complete("upload", "model", "shakespeare-c") == ["shakespeare-c", "shakespeare-char"]
    assert complete("status", "--network", "") == ["local", "ic"]
    assert complete("status", "--identity", "an") == ["an", "anonymous"]
    assert complete("cost", "--shape", "gpt2-12") == ["gpt2-124m"]

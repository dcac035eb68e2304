"""Help, usage errors, exit codes and `--json`, as far as no network is needed."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from icgpt import __version__
from icgpt.cli import COMMANDS, cli, run

pytestmark = pytest.mark.usefixtures("alone")


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        yield (*path, name)


ALL = list(commands(cli))


def command(path: tuple[str, ...]) -> click.Command:
    found: click.Command = cli
    for name in path:
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), name)
        assert inner is not None
        found = inner
    return found


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in said
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"icgpt {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["network"], ["access"]], ids=" ".join)
def test_no_arguments_is_a_call_for_help(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Usage: icgpt" in said.err
    assert "Examples:" in said.err


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--help"]) == 0
    said = capsys.readouterr().out
    assert "Examples:" in said
    if not isinstance(command(path), click.Group):
        assert "--json" in said
    if len(path) == 1:
        assert command(path).get_short_help_str(100) == COMMANDS[path[0]]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_examples_are_command_lines_that_exist(path: tuple[str, ...]) -> None:
    for example in command(path).examples:  # type: ignore[attr-defined]
        *_, words = example.split("| ") if "| icgpt" in example else [example]
        program, *arguments = shlex.split(words.replace("$(", "").replace(")", ""))
        assert program == "icgpt"
        context = click.Context(cli)
        found: click.Command = cli
        while isinstance(found, click.Group):
            inner = found.get_command(context, arguments.pop(0))
            assert inner is not None
            found = inner
        if "$(" not in example:
            found.make_context(found.name, arguments)


@pytest.mark.parametrize("command", [["generate", "x"], ["infer", "1"]])
def test_log_probabilities_are_printed_as_json_only(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--logprobs", "2"]) == 2
    assert "--logprobs needs --json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["generate", "x", "--nothing"],
        ["generate", "x", "-n", "0"],
        ["generate", "x", "-n", "many"],
        ["generate", "x", "--seed", "-1"],
        ["generate", "x", "--context", "roll"],
        ["generate", "x", "--top-p", "most"],
        ["generate", "x", "--no-repeat-ngram-size", "0"],
        ["generate", "x", "--min-new-tokens", "-1"],
        ["generate", "x", "--logprobs", "-1"],
        ["generate", "x", "--stop", "\udcff"],
        ["infer", "1", "--stop", "x"],
        ["infer"],
        ["infer", "-n", "1"],
        ["infer", "x"],
        ["infer", "4294967296"],
        ["decode"],
        ["upload", "model"],
        ["access", "public", "maybe"],
        ["access", "add", "not-a-principal"],
        ["access", "add", "2vxsx-fae", "--role", "king"],
        ["access", "quotas", "--user-tokens", "-1"],
        ["access", "quotas", "--public-tokens", "many"],
        ["access", "quotas", "--user-tokens", str(2**64)],
        ["access", "quotas", "--queue", "0"],
        ["access", "quotas", "--cycles-floor", "none"],
        ["network", "start", "--port", "70000"],
        ["deploy", "--mode", "twice"],
        ["deploy", "--wasm", "none.wasm"],
        ["deploy", "--canister-id", "nonsense"],
        ["status", "--network", "nowhere"],
        ["status", "--network", "http://example.org"],
        ["status", "--identity", "none.pem"],
        ["status", "--network", "ic"],
        ["chat", "--roles", "ROMEO"],
        ["chat", "--load", "none.json", "--network", "ic"],
        ["eval"],
        ["eval", "none.txt", "--stride", "0"],
        ["eval", "none.txt"],
        ["bench", "-n", "1"],
        ["cost", "--shape", "none"],
        ["logs", "--last", "0"],
        ["completion", "csh"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("as_json", [False, True])
def test_usage_errors(
    arguments: list[str], as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, *(["--json"] if as_json else [])]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("Error: ")
    assert said.err.count("\n") == 1
    if as_json:
        error = json.loads(said.out)["error"]
        assert error["exit_code"] == 2
        assert error["message"]
        assert error["hint"], "an error must say what to do next"
    else:
        assert said.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "x"],
        ["infer", "1"],
        ["tokenize", "x"],
        ["decode", "1"],
        ["access", "list"],
        ["access", "public", "on"],
        ["status"],
        ["network", "status"],
        ["chat"],
        ["bench"],
        ["cost"],
        ["logs"],
    ],
    ids=" ".join,
)
def test_the_network_is_not_running(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "Error: the local network isn't running. Start it with: icgpt network start\n"
    )
    assert run([*arguments, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "network"


def test_stopping_what_is_not_running(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["network", "stop"]) == 0
    assert capsys.readouterr().err == "The local network wasn't running.\n"
    assert run(["network", "reset", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"running": False}


def test_models_are_checked_before_the_network_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["upload", "model", str(tmp_path / "none")]) == 1
    assert "doesn't exist" in capsys.readouterr().err
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    assert run(["upload", "model", str(folder)]) == 1
    assert "config.json has no n_embd" in capsys.readouterr().err


def test_a_module_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.wasm").write_bytes(b"hello")
    assert run(["deploy", "--wasm", "x.wasm"]) == 2
    assert "no WebAssembly module" in capsys.readouterr().err


def test_mainnet_needs_a_key_and_spends_nothing_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.wasm").write_bytes(b"\x00asm\x01\x00\x00\x00")
    assert run(["deploy", "--network", "ic", "--wasm", "x.wasm"]) == 2
    assert "--identity PEM" in capsys.readouterr().err
    arguments = ["--network", "ic", "--wasm", "x.wasm", "--identity", "anonymous"]
    assert run(["deploy", *arguments]) == 2
    assert "--canister-id" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * ((2 << 20) + 1)])
def test_stdin_that_is_no_text(
    data: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run(["generate", "-"]) == 2
    assert "stdin" in capsys.readouterr().err


HEAVY = ["aiohttp", "asyncio", "cbor2", "numpy", "requests", "rich", "tokenizers", "wasmtime"]


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("from icgpt.cli import run; run(['--help'])", []),
        ("from icgpt.cli import run; run(['generate', '--help'])", []),
        ("import icgpt.client, icgpt.network, icgpt.cli.writing", ["cbor2", "requests"]),
    ],
    ids=["help", "help of a command", "what a first token needs"],
)
def test_what_takes_long_to_load_is_loaded_when_it_is_used(code: str, allowed: list[str]) -> None:
    code += f"; import sys; print('loaded:', *[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split()[1:] == allowed


def test_arguments_are_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["generate"], ["verify"], ["access", "add"]):
        assert run([*words, "--help"]) == 0
        said = capsys.readouterr().out
        options = said.partition("Options:\n")[2].splitlines()
        assert options[0].lstrip().startswith("-")

"""What a terminal, a pipe and the words of a stranger may do to the command line: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import typed
from fake_network import CANISTER, FakeNetwork

from icgpt import candid
from icgpt.cli import run
from icgpt.cli.common import bytes_text, count_text, printable
from icgpt.errors import IcgptError, RejectedError
from icgpt.principal import to_text

DECODE = ["decode", "1", "-c", to_text(CANISTER)]
ESCAPES = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202etxet\r\x00"
RESULT = candid.Variant({"Ok": candid.TEXT, "Err": candid.TEXT})


pytestmark = pytest.mark.usefixtures("alone")


def answering(tag: str, text: str) -> FakeNetwork:
    return FakeNetwork(lambda method, arg: candid.encode([RESULT], [{tag: text}]))


def steers(text: str) -> bool:
    """Whether a terminal would do more than show this."""
    return any((ord(c) < 32 and c not in "\n\t") or c in "\x7f\x9b\u202e\r" for c in text)


def test_a_terminal_is_not_steered_by_an_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering("Ok", "one\n\ttwo é 😀" + ESCAPES) as fake:
        command = [*DECODE, "--network", fake.url]
        # A pipe gets what the canister said, to the byte.
        assert run(command) == 0
        assert capsys.readouterr().out == "one\n\ttwo é 😀" + ESCAPES + "\n"
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert run(command) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("one\n\ttwo é 😀\\x1b[2J")
        assert not steers(shown)
        # JSON never steers, wherever it goes.
        assert run([*command, "--json"]) == 0
        shown = capsys.readouterr().out
        assert not steers(shown)
        assert json.loads(shown)["text"].endswith(ESCAPES)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_terminal_is_not_steered_by_an_error(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering("Err", f"no{ESCAPES}\nError: all is well" + "x" * 100_000) as fake:
        assert run([*DECODE, "--network", fake.url, *(["--json"] if as_json else [])]) == 4
    said = capsys.readouterr()
    assert not steers(said.err)
    assert not steers(said.out)
    assert said.err.count("\n") == 1
    assert len(said.err) < 3000
    if as_json:
        assert len(json.loads(said.out)["error"]["message"]) > 100_000


def test_a_server_that_is_no_network_says_what_it_likes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults = [lambda path, body: (500, ESCAPES.encode() + b"\xff" * 100)]
    with FakeNetwork(faults=faults) as fake:
        assert run([*DECODE, "--network", fake.url]) == 3
    assert not steers(capsys.readouterr().err)


def test_printable_leaves_all_scripts_alone() -> None:
    text = "Tiếng Việt, עברית, العربية, 日本語　, 👩‍👩‍👧 \u00a0\n\t"
    assert printable(text) == text


def test_a_long_reject_is_read_in_no_time() -> None:
    # Would take hours if the work grew with the square of the length.
    error = RejectedError("with message: '" * 140_000, 4)
    assert error.platform_message.startswith("with message")


def cli(*arguments: str, **more: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "icgpt", *arguments],
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        stderr=subprocess.PIPE,
        **more,  # type: ignore[call-overload]
    )


def test_a_reader_that_has_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    process = cli("status", "-c", "none", "--json", stdout=write)
    os.close(write)
    _, err = process.communicate()
    assert process.returncode == 3
    assert err.decode().count("\n") == 1


def test_closed_streams() -> None:
    process = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m icgpt generate <&-', sys.executable], capture_output=True
    )
    assert process.returncode == 2
    assert process.stderr.startswith(b"Error: ")
    process = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m icgpt status --json >&-', sys.executable], capture_output=True
    )
    assert process.returncode == 3
    assert process.stderr.count(b"\n") == 1


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_arguments_that_are_no_text(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "\udcff", *more]) == 2
    assert "UTF-8" in capsys.readouterr().err
    assert run(["upload", "model", "\udcff", *more]) == 1
    assert run(["generate", "x", "-c", "\udcff", "--network", "ic", *more]) == 2


def test_a_state_folder_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ICGPT_STATE_DIR", str(tmp_path / "file" / "state"))
    assert run(["network", "start", "--json"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("Error: ")
    assert str(tmp_path / "file") in json.loads(said.out)["error"]["message"]


def test_json_after_two_dashes_is_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "--", "--json"]) == 3
    assert capsys.readouterr().out == ""


def test_a_reset_is_never_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["network", "reset", "--json"]) == 2
    assert "--yes" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_reset_that_is_not_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = tmp_path / "state" / "network.log"
    kept.parent.mkdir()
    kept.write_text("")
    typed(monkeypatch, "n\n")
    assert run(["network", "reset"]) == 1
    assert "nothing was removed" in capsys.readouterr().err
    assert kept.exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["-n", str(2**32)], "--max-new-tokens"),
        (["--seed", str(2**64)], "--seed"),
        (["--top-k", str(2**32)], "--top-k"),
    ],
)
@pytest.mark.parametrize("command", [["generate", "x"], ["infer", "1"]])
def test_numbers_that_no_canister_takes(
    command: list[str], arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, *arguments]) == 2
    assert word in capsys.readouterr().err


def test_mainnet_by_its_address_needs_a_key_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.wasm").write_bytes(b"\x00asm\x01\x00\x00\x00")
    assert run(["deploy", "--network", "https://icp-api.io", "--wasm", "x.wasm"]) == 2
    assert "--identity PEM" in capsys.readouterr().err


def test_figures_for_people() -> None:
    assert [count_text(n) for n in (7, 12_345, 1e6, 999_900_000, 2.5e12)] == [
        "7",
        "12,345",
        "1 million",
        "1 billion",
        "2.5 trillion",
    ]
    assert [bytes_text(n) for n in (0, 999, 1000, 999_960, 5.5e6, 2e9)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "1.0 MB",
        "5.5 MB",
        "2.00 GB",
    ]


def test_errors_have_one_full_stop(capsys: pytest.CaptureFixture[str]) -> None:
    from icgpt.cli import _tell

    assert _tell(IcgptError("It broke.", "Mend it.").to_json(), False) == 1
    assert capsys.readouterr().err == "Error: It broke. Mend it.\n"
    assert _tell(IcgptError("Is it broken?", "Mend it.").to_json(), False) == 1
    assert capsys.readouterr().err == "Error: Is it broken? Mend it.\n"

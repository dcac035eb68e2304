"""config.toml, the environment and flags: which of them counts, and what is wrong in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_kit import typed

from icgpt.cli import run, settings

pytestmark = pytest.mark.usefixtures("alone")


def write(text: str) -> Path:
    path = settings.file_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> str:
    """The message of the error that a command ends with."""
    capsys.readouterr()
    assert run([*arguments, "--json"]) == code
    return str(json.loads(capsys.readouterr().out)["error"]["message"])


def values(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[object, str]]:
    capsys.readouterr()
    assert run(["config", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["values"]
    return {one["name"]: (one["value"], one["origin"]) for one in found}


def test_flags_go_before_the_environment_and_that_before_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each of these networks is refused by its own name, so the error tells which one counted.
    write('network = "http://file"')
    assert "http://file" in told(capsys, "status", code=2)
    monkeypatch.setenv("ICGPT_NETWORK", "http://environment")
    assert "http://environment" in told(capsys, "status", code=2)
    assert "http://flag" in told(capsys, "status", "--network", "http://flag", code=2)
    # What is set for one command counts there, before what is set for all.
    monkeypatch.delenv("ICGPT_NETWORK")
    write('network = "http://file"\n[status]\nnetwork = "http://section"')
    assert "http://section" in told(capsys, "status", code=2)
    assert "http://file" in told(capsys, "logs", code=2)


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["generate", "x"], "ICGPT_GENERATE_MAX_NEW_TOKENS"),
        (["network", "start"], "ICGPT_NETWORK_START_PORT"),
        (["access", "quotas"], "ICGPT_ACCESS_QUOTAS_QUEUE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_option_has_a_variable(
    arguments: list[str],
    variable: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, "many")
    assert "'many' is not a whole number" in told(capsys, *arguments, code=2)
    monkeypatch.setenv(variable, "5")
    assert (variable, "5") in [(origin, value) for value, origin in values(capsys).values()]


def test_what_a_file_may_say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ICGPT_STATE_DIR")
    write(
        """
        identity = "anonymous"
        state-dir = "elsewhere"
        [generate]
        max-new-tokens = 7
        temperature = 1
        stop = ["a b", "c"]
        stream = false
        [network-start]
        port = 8000
        [access-quotas]
        user-tokens = "none"
        """
    )
    found = values(capsys)
    assert found["network"] == ("local", "default")
    assert found["state-dir"] == ("elsewhere", "config.toml")
    assert found["generate.stop"] == (["a b", "c"], "config.toml")
    assert found["generate.stream"] == (False, "config.toml")
    assert found["network-start.port"] == (8000, "config.toml")
    assert "icgpt network start" in told_hint(capsys, "generate", "x", code=3)


def told_hint(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> str:
    capsys.readouterr()
    assert run([*arguments, "--json"]) == code
    return str(json.loads(capsys.readouterr().out)["error"]["hint"])


def told_plainly(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(arguments) == 1
    return capsys.readouterr().err


def test_the_state_folder_of_the_file_is_where_the_network_looks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_text("no folder")
    write(f'state-dir = "{tmp_path / "elsewhere" / "state"}"')
    monkeypatch.delenv("ICGPT_STATE_DIR")
    assert "elsewhere" in told(capsys, "network", "start", code=1)


WRONG = {
    "no TOML": ("network", "is not valid TOML"),
    "not text": ("\udcff", "is not valid TOML"),
    "an unknown key": ('colour = "red"', "'colour'"),
    "a number for a text": ("network = 5", "'network' must be a text"),
    "a table for a text": ("[network]\nport = 1", "'network' must be a text"),
    "an unknown section": ("[generat]\nseed = 1", "'generat' is no command"),
    "an unknown option": ("[generate]\ncolour = 1", "'generate.colour' is no option"),
    "a wrong way to write it": ("[generate]\nmax_new_tokens = 1", "'generate.max_new_tokens'"),
    "an option that is for calls": ("[generate]\njson = true", "'generate.json'"),
    "a text for a number": ('[generate]\nseed = "x"', "'generate.seed' must be a whole number"),
    "a fraction": ("[generate]\nseed = 1.5", "'generate.seed' must be a whole number"),
    "true for a number": ("[generate]\nseed = true", "'generate.seed' must be a whole number"),
    "a text for a fraction": ('[generate]\ntemperature = "hot"', "must be a number"),
    "a number for a flag": ("[generate]\nstats = 1", "must be true or false"),
    "numbers for texts": ("[generate]\nstop = [1]", "must be a text, or several"),
    "several for one": ('[generate]\ncontext = ["stop"]', "must be a text"),
    "out of range": ("[generate]\nmax-new-tokens = 0", "0 is not in the range"),
    "no such choice": ('[generate]\ncontext = "roll"', "'roll'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_it_may_not(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, words = WRONG[case]
    path = write("")
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for arguments in (["generate", "x"], ["config"]):
        message = told(capsys, *arguments, code=2)
        assert words in message
        assert str(path) in message
    # Help and reports of what is wrong are there all the same.
    assert run(["generate", "--help"]) == 0
    assert run(["env"]) == 0


def test_sections_of_other_commands_are_checked_by_config_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("[network-begin]\nport = 1")
    assert "icgpt network start" in told_hint(capsys, "generate", "x", code=3)
    assert "'network-begin' is no command" in told(capsys, "config", code=2)


def test_a_file_that_is_too_large(capsys: pytest.CaptureFixture[str]) -> None:
    write("#" * (settings.MAX_FILE_BYTES + 1))
    assert "too large" in told(capsys, "generate", "x", code=2)


@pytest.mark.parametrize(
    ("section", "name"), [("upload", "trust-pickle"), ("deploy", "yes"), ("status", "json")]
)
def test_some_options_are_for_a_single_call(
    section: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(f"[{section}]\n{name} = true")
    assert f"'{section}.{name}' is no option" in told(capsys, "config", code=2)


def test_json_and_yes_are_for_the_call_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICGPT_NETWORK_RESET_YES", "1")
    typed(monkeypatch, "n\n")
    assert "nothing was removed" in told_plainly(capsys, "network", "reset")
    monkeypatch.setenv("ICGPT_ENV_JSON", "1")
    assert run(["env"]) == 0
    assert not capsys.readouterr().out.startswith("{")

"""The examples of every `--help`, which docs/reference/cli.md shows too, are run in one project."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from doc_project import DocProject
from model_kit import ROOT

from icgpt.cli import cli

# What can't be run here, and the line of docs/unproven.md that says why.
NOT_RUN = {
    r"uc7oy-…-cai|--network ic": "mainnet",
    r"\$\(dfx ": "dfx itself",
    r"icgpt train shakespeare-char$": "downloading tiny Shakespeare",
    r"icgpt train .*--data": "training in these examples",
    r"weights\.pth --model-name gpt2$": "the real weights of GPT-2",
}
# These speak of GPT-2's vocabulary; the others of Shakespeare's.
GPT2 = re.compile("France|10919|15496")
UPLOAD = "icgpt upload model shakespeare-char"
# They end with Ctrl-C alone.
WAITING = ("icgpt logs --follow", "--foreground")
# These print where they serve, and end with Ctrl-C alone; they need a package.
SERVING = {"icgpt ui": "gradio", "icgpt serve": "fastapi"}
# These change what the others need, so they are run last, in this order.
LATE = (
    *("icgpt upload", "icgpt deploy", "icgpt demo", "icgpt network status"),
    *("icgpt network launcher", "icgpt network start", "icgpt network trust"),
    *("icgpt network reset", "icgpt network stop"),
)


def examples() -> list[str]:
    """All of them, in the order in which they are run: those of GPT-2 first."""
    lines = [line for _, lines in _examples(cli, ()) for line in lines]
    return sorted(lines, key=lambda line: -2 if GPT2.search(line) else _lateness(line))


def _lateness(line: str) -> int:
    return next((place for place, start in enumerate(LATE) if line.startswith(start)), -1)


def _examples(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    if path:
        yield path, list(command.examples)  # type: ignore[attr-defined]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _examples(inner, (*path, name))


def why_not(line: str) -> str | None:
    """The line of docs/unproven.md, for an example that can't be run."""
    return next((thing for pattern, thing in NOT_RUN.items() if re.search(pattern, line)), None)


def test_what_is_not_run_is_listed() -> None:
    unproven = (ROOT / "docs" / "unproven.md").read_text()
    for pattern, thing in NOT_RUN.items():
        assert any(re.search(pattern, line) for line in examples()), f"no example is {pattern}"
        assert f"\n| {thing}" in unproven


@pytest.mark.slow
def test_examples_of_help(tmp_path: Path) -> None:
    project = DocProject(tmp_path)
    try:
        for need in ("network", "model", "checkpoints", "hub", "story"):
            project.need(need)
        _files(project)
        ports = {port: _free_port() for port in ("8000", "8080", "5001")}
        project.export(ICGPT_SERVE_PORT="0")
        lines = [line for line in examples() if why_not(line) is None]
        last = max(place for place, line in enumerate(lines) if GPT2.search(line))
        lines[: last + 1] = ["icgpt upload model ./gpt2", *lines[: last + 1], UPLOAD]
        for line in lines:
            typed = re.sub("|".join(ports), lambda found: ports[found[0]], line)
            if any(word in line for word in WAITING):
                typed = f"timeout -s INT 5 {typed} || true"
            if (package := SERVING.get(" ".join(line.split()[:2]))) is not None:
                if find_spec(package) is None:
                    continue
                typed = UNTIL_SERVED.format(line=typed)
            done = project.bash(typed)
            assert done.returncode == 0, f"{line}\n{done.stdout}"
            assert "Traceback" not in done.stdout, line
    finally:
        project.close()


# Job control, so that Ctrl-C reaches what runs in the background.
UNTIL_SERVED = """
set -m
rm -f address
{line} >address & job=$!
until [ -s address ] || ! kill -0 $job 2>/dev/null; do sleep 0.1; done
kill -INT $job
wait $job
grep -q http://127.0.0.1: address
"""


def _free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def _files(project: DocProject) -> None:
    """What the examples read."""
    project.put("letter.txt", "Dear friend, ")
    talk = "To be\n/save talk.json\n"
    project.put("talk.txt", talk)
    done = project.bash("icgpt chat -n 5 --seed 1 <talk.txt")
    assert done.returncode == 0, done.stdout
    status = json.loads(project.bash("icgpt network status --json").stdout)
    (project.folder / "network.der").write_bytes(bytes.fromhex(status["root_key"]))

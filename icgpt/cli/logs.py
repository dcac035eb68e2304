"""`icgpt logs`: what a canister logs, and its traps."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Final

import click

from icgpt.cli.common import answer, calling_options, opened, show
from icgpt.cli.help import Command

PAUSE_SECONDS: Final = 1.0


@click.command(
    cls=Command, examples=["icgpt logs", "icgpt logs --follow", "icgpt logs --last 5 --json"]
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="No more than so many old lines.")
@calling_options
def logs(
    follow: bool,
    last: int | None,
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Show what a canister logs.

    The platform keeps the last few kilobytes, traps among them, for controllers to see. With
    --follow and --json each line is a JSON document.
    """
    from icgpt.management import LogLine, log

    def text(line: LogLine) -> str:
        moment = datetime.fromtimestamp(line.time_ns / 1e9, UTC)
        return f"{line.index:>6}  {moment:%Y-%m-%d %H:%M:%S}  {line.text}"

    def value(line: LogLine) -> dict[str, object]:
        return {"index": line.index, "time_ns": line.time_ns, "text": line.text}

    with opened(network, identity) as (agent, target, project):
        canister_id = project.resolve(canister, target.name)
        lines = log(agent, canister_id)
        lines = lines[-last:] if last else lines
        if not follow:
            answer(as_json, {"lines": [value(one) for one in lines]}, "\n".join(map(text, lines)))
            return
        after = -1
        while True:
            for line in lines:
                if line.index > after:
                    after = line.index
                    if as_json:
                        click.echo(json.dumps(value(line)))
                    else:
                        show(text(line))
            time.sleep(PAUSE_SECONDS)
            lines = log(agent, canister_id)

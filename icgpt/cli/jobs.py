"""`icgpt jobs`: what a canister writes at the moment, and for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from icgpt.cli.common import all_models, answer, calling_options, opened
from icgpt.cli.help import Command

if TYPE_CHECKING:
    from icgpt.results import RunningJob

_SHOWN: Final = 12  # hexadecimal digits of an id


@click.command(cls=Command, examples=["icgpt jobs", "icgpt jobs --cancel all --json"])
@click.option(
    "--cancel",
    "ending",
    metavar="ID|all",
    help=f"End this job, by its id or the {_SHOWN} digits shown, or all of them.",
)
@calling_options
def jobs(
    ending: str | None, canister: str, network: str | None, identity: str | None, as_json: bool
) -> None:
    """Show or end the answers that are being written.

    Managers see and end the jobs of all callers, others their own. Prompts and answers are not
    shown. What a job has written until it is ended stays readable for its caller.
    """
    from icgpt.errors import UsageError

    with opened(network, identity) as place:
        found = [
            (name, model, job)
            for name, model in all_models(place, canister).items()
            for job in model.jobs()
        ]
        if ending is not None:
            wanted = ending.lower()
            whole = len(wanted) >= _SHOWN
            found = [
                one
                for one in found
                if wanted == "all" or (whole and one[2].job.hex().startswith(wanted))
            ]
            if not found and wanted != "all":
                raise UsageError(f"no job '{ending}' is running", "See them with: icgpt jobs")
            for _, model, job in found:
                model.cancel(job.job)
    value = [{"canister": name, **job.to_json()} for name, _, job in found]
    lines = [_line(job, ending is not None) for _, _, job in found] or ["no jobs"]
    answer(as_json, value, "\n".join(lines))


def _line(job: RunningJob, ended: bool) -> str:
    from icgpt.principal import to_text

    state = "ended" if ended else "running" if job.running else "waiting"
    return (
        f"{job.job.hex()[:_SHOWN]}  {state}  {job.tokens:,} of {job.max_tokens:,} tokens, "
        f"{job.instructions / 1e9:.2f} G instructions, for {to_text(job.owner)}"
    )

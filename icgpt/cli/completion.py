"""`icgpt completion`: what makes the shell complete commands and options."""

from __future__ import annotations

from typing import Final

import click

from icgpt.cli.common import answer, json_option
from icgpt.cli.help import Command

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_ICGPT_COMPLETE"
PLACES: Final = {
    "bash": "~/.local/share/bash-completion/completions/icgpt",
    "zsh": "a folder of $fpath, as _icgpt",
    "fish": "~/.config/fish/completions/icgpt.fish",
}


@click.command(
    cls=Command,
    examples=["icgpt completion bash", "icgpt completion fish"],
)
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
@click.pass_context
def completion(ctx: click.Context, /, shell: str, as_json: bool) -> None:
    """Let the shell complete commands.

    Prints a script. Keep it in ~/.local/share/bash-completion/completions/icgpt (bash), as _icgpt
    in a folder of $fpath (zsh), or in ~/.config/fish/completions/icgpt.fish (fish). To try it in
    bash: eval "$(icgpt completion bash)"
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    # Not `source()`: for bash that would run bash to ask for its version.
    maker = kind(ctx.find_root().command, {}, "icgpt", VARIABLE)
    script = maker.source_template % maker.source_vars()
    answer(as_json, {"shell": shell, "script": script, "place": PLACES[shell]}, script.rstrip("\n"))

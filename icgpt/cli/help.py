"""Our kind of commands: their `--help` ends with examples, their options have a file.

The examples are kept where a test can run them. What the configuration file says stands in for
options that neither the command line nor the environment gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Final

import click

SHARED: Final = ("canister", "network", "identity", "as_json", "help")


def _write(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    with formatter.section("Examples"):
        for line in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class GroupedOption(click.Option):
    """An option that `--help` lists under a title of its own."""

    def __init__(self, *arguments: Any, group: str, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.group = group


class Command(click.Command):
    """A command with examples."""

    def __init__(self, *arguments: Any, examples: Sequence[str], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Looks into the configuration file first; help must work with a broken one, too."""
        asked = {"--help", "-h"}.isdisjoint(takewhile(lambda one: one != "--", args))
        if asked and not ctx.resilient_parsing:
            from icgpt.cli import COMMANDS, settings

            if settings.options_of(self):
                ctx.default_map = settings.defaults(ctx, tuple(COMMANDS))
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options first, those that all commands share after them."""
        own, shared = "Options", "Where, and how it is told"
        sections: dict[str, list[tuple[str, str]]] = {own: []}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Argument):
                continue  # the usage line has it, and the text tells of it
            record = parameter.get_help_record(ctx)
            if record is not None:
                title = shared if parameter.name in SHARED else getattr(parameter, "group", own)
                sections.setdefault(title, []).append(record)
        sections[shared] = sections.pop(shared, [])  # last
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples stand last."""
        _write(self.examples, formatter)


class Group(click.Group):
    """A group with examples."""

    def __init__(self, *arguments: Any, examples: Sequence[str], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples stand last."""
        _write(self.examples, formatter)

"""Answers that are asked for so that they can be proven, and the receipts that are kept of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icgpt.cli.common import F, say

if TYPE_CHECKING:
    from icgpt.client import ModelCanister, Stream
    from icgpt.fleet import Fleet
    from icgpt.results import Completion


def receipt_option(function: F) -> F:
    """`--receipt`."""
    option: Callable[[F], F] = click.option(
        "--receipt",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Keep in FILE what proves the answer: see `icgpt verify`.",
    )
    return option(function)


class Proof:
    """What proves one answer: begun with it, kept when it has ended.

    Args:
        model: who answers.
        path: where the receipt is kept. A file that holds something else is not overwritten.
    """

    def __init__(self, model: ModelCanister | Fleet, path: Path) -> None:
        from icgpt import kept_receipt
        from icgpt.errors import UsageError, VerificationError

        self.model = model
        self.path = path
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent}", "Make it, or name another file.")
        if path.exists():
            try:
                kept_receipt.read(path)
            except VerificationError as error:
                raise UsageError(f"{path} holds something else", "Name another file.") from error

    def begin(self, prompt: str | Sequence[int], options: dict[str, Any]) -> Stream:
        """Has the answer written, by one canister from its beginning to its end."""
        from icgpt.client import ModelCanister, Stream

        self._asked = self.model.ask(prompt, **options)
        self._writer = ModelCanister(self.model.agent, self._asked.canister)
        return Stream(self._writer, self._asked.job)

    def keep(self, done: Completion) -> Completion:
        """Writes the receipt of what was begun; the same answer with the job and who wrote it."""
        receipt = self._writer.keep(self._asked)
        receipt.write(self.path, self.model.agent.root_key)
        say(f"What proves it is in {self.path}; check it with: icgpt verify {self.path}")
        return replace(done, job=self._asked.job, canister=self._asked.canister)

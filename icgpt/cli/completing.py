"""What the shell's Tab offers for values: canisters, networks, models, files."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Completer: TypeAlias = "Callable[[click.Context, click.Parameter, str], list[CompletionItem]]"


def names(known: Callable[[], list[str]], files: bool = False) -> Completer:
    """Offers names, and files where a path may stand, too."""

    def complete(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name) for name in known() if name.startswith(begun)]
        # In front: bash forgets what stands before it.
        return [CompletionItem(begun, type="file"), *found] if files else found

    return complete


def _canisters() -> list[str]:
    from icgpt import project

    return project.find().names()


def _models() -> list[str]:
    from icgpt.checkpoint.source import built_in

    return built_in()


def _shapes() -> list[str]:
    from icgpt.cost import shapes

    return list(shapes())


CANISTERS = names(_canisters)
NETWORKS = names(lambda: ["local", "ic"])
IDENTITIES = names(lambda: ["anonymous"], files=True)
MODELS = names(_models, files=True)
SHAPES = names(_shapes)
FILES = names(list, files=True)

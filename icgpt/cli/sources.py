"""What the commands that read a model share: options that say more of a source than its name."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint

F = TypeVar("F", bound=Callable[..., Any])


def precision_option(text: str) -> Callable[[F], F]:
    """`--precision`, with what it says of this command."""
    return click.option("--precision", type=click.Choice(["int8", "int16", "f32"]), help=text)


def out_option(text: str) -> Callable[[F], F]:
    """`--out FOLDER`, which the command writes."""
    path = click.Path(path_type=Path)
    return click.option("--out", metavar="FOLDER", required=True, type=path, help=text)


def source_options(function: F) -> F:
    """`--model-name`, `--revision`, `--trust-pickle`; the command gets `open_source`.

    What it opens is closed when the command ends.
    """
    return source_options_from()(function)


def source_options_from(*model_name: str) -> Callable[[F], F]:
    """The same, where variables of the environment can name the published model, too."""

    def decorate(function: F) -> F:
        with_source = _opening(function)
        for option in (
            click.option(
                "--trust-pickle",
                is_flag=True,
                allow_from_autoenv=False,  # said once, for one file
                help="Let PyTorch unpickle a whole model. That runs code from the file.",
            ),
            click.option(
                "--revision",
                metavar="NAME",
                help="Branch, tag or commit of a model of the Hugging Face hub.",
            ),
            click.option(
                "--model-name",
                envvar=model_name or None,
                metavar="NAME",
                help="What bare weights are of: gpt2, gpt2-medium …, a folder, an id of the hub.",
            ),
        ):
            with_source = option(with_source)
        return with_source

    return decorate


def on_hub(source: str) -> bool:
    """Whether a source is a model of the hub: owner/name, and nothing here is called so."""
    from icgpt.checkpoint.hub import is_hub_id

    return is_hub_id(source) and not Path(source).exists()


def carried_source(
    source: str, open_source: Callable[[str], Checkpoint], revision: str | None
) -> tuple[Checkpoint | str, str, str | None]:
    """What a folder takes along of a source, as (model, name, revision).

    A model of the hub is not opened: the folder fetches it by its id, in that revision.
    """
    if on_hub(source):
        return source, source.rpartition("/")[2], revision
    model = open_source(source)
    return model, model.name, None


def _opening(function: F) -> F:
    """Gives a command `open_source` in place of the options that say more of a source."""

    @functools.wraps(function)
    def with_source(
        *arguments: Any,
        model_name: str | None,
        revision: str | None,
        trust_pickle: bool,
        **options: Any,
    ) -> Any:
        def open_source(source: str, **more: Any) -> Checkpoint:
            from icgpt.checkpoint import open_checkpoint

            told = {"model_name": model_name, "revision": revision, "trust_pickle": trust_pickle}
            checkpoint = open_checkpoint(source, **{**told, **more})
            opened.callback(checkpoint.close)
            return checkpoint

        with contextlib.ExitStack() as opened:
            return function(*arguments, open_source=open_source, **options)

    return with_source  # type: ignore[return-value]

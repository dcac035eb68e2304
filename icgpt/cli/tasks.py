"""Options of `icgpt serve` that say what its tasks `got` and `spam` have of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from icgpt.cli.completing import MODELS
from icgpt.errors import UsageError

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint
    from icgpt.serve.backend import Backend
    from icgpt.serve.tasks import Tasks

F = TypeVar("F", bound=Callable[..., Any])

Open = Callable[..., "Checkpoint"]
Load = Callable[["Checkpoint"], "Backend"]

_USUAL_NAME: Final = "gpt2"


def task_options(function: F) -> F:
    """`--got`, `--got-prompt`, `--spam`, `--spam-prompt`."""
    for option in (
        click.option(
            "--spam-prompt",
            metavar="TEXT",
            help="How a model that is no classifier is asked what {text} is.",
        ),
        click.option(
            "--spam",
            metavar="SOURCE",
            help="Let this model judge what is spam; best a classifier.",
            shell_complete=MODELS,
        ),
        click.option(
            "--got-prompt", metavar="TEXT", help="What stands before {text} in the task got."
        ),
        click.option(
            "--got",
            metavar="SOURCE",
            help="Let this model write in the task got.",
            shell_complete=MODELS,
        ),
    ):
        function = option(function)
    return function


def opened_as(open_source: Open, source: str, **more: Any) -> Checkpoint:
    """A model, of which it is assumed to be GPT-2 where it is bare weights and nobody says it."""
    from icgpt.checkpoint.state_dict import UntoldError

    try:
        return open_source(source, **more)
    except UntoldError:
        return open_source(source, model_name=_USUAL_NAME, **more)


def tasks_of(
    open_source: Open,
    load: Load,
    usual: str | None,
    got: str | None,
    got_prompt: str | None,
    spam: str | None,
    spam_prompt: str | None,
) -> Tasks:
    """What is set for the tasks.

    Args:
        open_source: opens a source.
        load: makes a checkpoint ready to write.
        usual: the source of the model that does all else; None for a canister's.
        got: a source for the task of this name.
        got_prompt: the form of its prompts.
        spam: a source for the task of this name.
        spam_prompt: the form in which a model is asked.
    """
    from icgpt.checkpoint.labels import NoLabelsError, labels_of
    from icgpt.serve.judging import USUAL_FORM
    from icgpt.serve.tasks import Tasks

    judge, labels = None, []
    if (source := spam or usual) is not None:
        try:
            # Loaded again where it also writes: an engine has one layer behind the trunk, and there
            # it is over tokens.
            classifier = opened_as(open_source, source, labels=True)
            judge, labels = load(classifier), labels_of(classifier)
        except NoLabelsError:
            judge = None if spam is None else load(opened_as(open_source, spam))
    if labels and spam_prompt is not None:
        raise UsageError("a classifier takes no --spam-prompt", "Leave it out.")
    return Tasks(
        got=None if got is None else load(opened_as(open_source, got)),
        got_form=got_prompt,
        spam=judge,
        spam_form=spam_prompt or USUAL_FORM,
        labels=labels,
    )

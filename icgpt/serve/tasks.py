"""Models and forms of their own that tasks may have, beside the model that all else is asked of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request

from icgpt.checkpoint.labels import Label
from icgpt.serve.backend import Backend
from icgpt.serve.desk import Desk
from icgpt.serve.figures import Figures
from icgpt.serve.judging import USUAL_FORM, Classifier, Expectation, Judge
from icgpt.serve.prompts import PLAIN, Form
from icgpt.serve.settings import Settings

GOT_FORM: Final = (
    "A tale of the Seven Kingdoms of Westeros, of dragons, wolves and winter:\n\n{text}"
)


@dataclass(frozen=True)
class Tasks:
    """What is set for the tasks."""

    got: Backend | None = None
    """What writes for `got`; what writes all else, when left out."""
    got_form: str | None = None
    """How its prompt is put; GOT_FORM, or as it is for a model of its own, when left out."""
    spam: Backend | None = None
    """What is asked for `spam`; what writes all else, when left out."""
    spam_form: str = USUAL_FORM
    """How a message is put to a model that is no classifier."""
    labels: Sequence[Label] = ()
    """What the model for `spam` can say, if it is a classifier."""

    @property
    def backends(self) -> list[Backend]:
        """Those that only tasks have."""
        return [one for one in (self.got, self.spam) if one is not None]


class TaskDesk:
    """Where tasks are asked for.

    Args:
        tasks: what is set for them.
        desk: where all else is asked for.
        settings: the caps.
        figures: what is counted.
    """

    def __init__(self, tasks: Tasks, desk: Desk, settings: Settings, figures: Figures) -> None:
        def desk_of(backend: Backend | None) -> Desk:
            return desk if backend is None else Desk(backend, settings, figures)

        form = tasks.got_form or (GOT_FORM if tasks.got is None else None)
        self.got = desk_of(tasks.got)
        self.got_form = Form.read(form) if form else PLAIN
        spam = desk_of(tasks.spam)
        self.judge: Judge
        if tasks.labels:
            self.judge = Classifier(spam, tasks.labels)
        else:
            self.judge = Expectation(spam, Form.read(tasks.spam_form))


def _task_desk_of(request: Request) -> TaskDesk:
    tasks: TaskDesk = request.app.state.tasks
    return tasks


TheTasks = Annotated[TaskDesk, Depends(_task_desk_of)]
"""The application's tasks, for a route's functions."""

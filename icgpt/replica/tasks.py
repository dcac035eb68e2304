"""The queue of tasks, which remembers what was done to it since it was last written down."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from icgpt.replica.records import QueueStep, Task, TaskKey


class TaskQueue:
    """Tasks, first come first served. For the worker's thread alone."""

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self._tasks = deque(tasks)
        self._steps: list[QueueStep] = []

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    @property
    def changed(self) -> bool:
        """Whether anything was done since the last time that `steps` was called."""
        return bool(self._steps)

    def append(self, task: Task) -> None:
        """Add a task."""
        self._tasks.append(task)
        self._steps.append(QueueStep("push", task=task))

    def induct(self, task: Task) -> None:
        """Add a user's message, which has been written down when it was let in."""
        self._tasks.append(task)
        self._steps.append(QueueStep("take", task.origin.request_id))

    def refuse(self, request_id: bytes) -> None:
        """Take note that a user's message does not come into the queue at all."""
        self._steps.append(QueueStep("drop", request_id))

    def popleft(self) -> Task:
        """Take the oldest task out."""
        self._steps.append(QueueStep("remove"))
        return self._tasks.popleft()

    def extract(self, key: TaskKey) -> Task | None:
        """Take a task out, wherever it stands."""
        for index, task in enumerate(self._tasks):
            if task.key == key:
                del self._tasks[index]
                self._steps.append(QueueStep("remove", index=index))
                return task
        return None

    def steps(self) -> list[QueueStep]:
        """Return what was done since the last time."""
        steps, self._steps = self._steps, []
        return steps

"""One model into all canisters of a fleet at the same time.

The files are hashed once and converted once. As many chunks are on their way as to one canister
alone, so memory stays as it is; a canister that fails is told of in the end, and loses the others
nothing. What was sent is kept, so the next run goes on where this one was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias, TypeVar

from icgpt.checkpoint import Checkpoint
from icgpt.client import ModelCanister
from icgpt.errors import IcgptError, of_several
from icgpt.results import ModelInfo
from icgpt.sending import AT_ONCE
from icgpt.upload import OnStep, Source, Step, Upload, put

T = TypeVar("T")

OnMemberStep: TypeAlias = Callable[[str, Step], None]
"""Told of a canister's name and where it stands; of no name while the model is converted."""

EVERYBODY: Final = ""
_AGAIN: Final = (
    "Upload again: those that have the model are left alone, the others go on where they were."
)


def upload_fleet(
    models: Mapping[str, ModelCanister],
    checkpoint: Checkpoint,
    on_step: OnMemberStep | None = None,
    force: bool = False,
    precision: str | None = None,
    seed_flow: bool = False,
    agree: Callable[[int, int], None] | None = None,
    name: str | None = None,
) -> dict[str, Upload]:
    """Uploads a checkpoint to several canisters and sets it up in each.

    FleetError names those that did not get it; when all failed alike, it is their error.

    Args:
        models: the canisters by their names, which one client reaches.
        checkpoint: what to upload.
        on_step: told of progress, by one thread at a time.
        force: also to canisters that run this very model.
        precision: as of `icgpt.upload.upload`.
        seed_flow: by the seed's own methods.
        agree: told how many canisters need it and how many cycles it takes each of them at most,
            before anything is sent; raises to prevent it.
        name: what the model is called there; the checkpoint's name when left out.
    """
    crew = _Crew(on_step or (lambda name, step: None))
    source = Source(checkpoint, precision, seed_flow, name)
    infos = crew.each(list(models), lambda member: models[member].info())
    wanting = [member for member, info in infos.items() if force or not source.is_live(info)]
    if wanting and agree is not None:
        agree(len(wanting), source.cycles())
    if any(force or not source.is_there(infos[member]) for member in wanting):
        source.convert(crew.reporter(EVERYBODY))
    window = max(1, AT_ONCE // max(1, len(wanting)))

    def bring(member: str) -> Upload:
        info: ModelInfo = infos[member]
        return put(models[member], source, info, crew.reporter(member), force, window)

    done = crew.each(list(infos), bring)
    if crew.failed:
        raise of_several("get the model", list(done), crew.failed, _AGAIN)
    return done


class _StoppedError(Exception):
    """The work is to end."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__()
        self.reason = reason


class _Crew:
    """Threads, one a canister and not too many; what fails is kept."""

    def __init__(self, on_step: OnMemberStep) -> None:
        self.failed: dict[str, IcgptError] = {}
        self._on_step = on_step
        self._telling = threading.Lock()
        self._end: BaseException | None = None  # why the work is to end

    def reporter(self, name: str) -> OnStep:
        """Tells of one canister; raises where the work is to end."""

        def report(step: Step) -> None:
            with self._telling:
                if self._end is not None:
                    raise _StoppedError(self._end)
                try:
                    self._on_step(name, step)
                except BaseException as error:
                    self._end = error
                    raise

        return report

    def each(self, names: list[str], work: Callable[[str], T]) -> dict[str, T]:
        """Does it for each; those that failed are left out of what is returned."""
        done: dict[str, T] = {}
        if len(names) == 1:  # in this thread, where Ctrl-C ends it at once
            self._settle(names[0], lambda: work(names[0]), done)
            return done
        pool = ThreadPoolExecutor(AT_ONCE, "fleet")
        running = {name: pool.submit(work, name) for name in names}
        try:
            for name, one in running.items():
                self._settle(name, one.result, done)
        except _StoppedError as stopped:
            raise stopped.reason from None
        except BaseException as error:
            self._end = error
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return done

    def _settle(self, name: str, result: Callable[[], T], done: dict[str, T]) -> None:
        try:
            done[name] = result()
        except IcgptError as error:
            self.failed[name] = error

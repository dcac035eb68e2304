"""One engine in a process of its own: `python -m icgpt.serve.worker`, started by `Instance`.

Each line on stdin is a JSON document that asks for something, each line on stdout one that tells
something. The first names the model's files. Requests carry a number of the asker's, and all that
belongs to one carries it back. New requests join those that are running before each pass.

The process ends when its stdin does: no engine outlives its service.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from icgpt.checkpoint import Checkpoint
from icgpt.checkpoint.config import parse_config
from icgpt.checkpoint.model_files import SourceFile
from icgpt.engine import Engine, EngineError, EngineMemoryError, Event
from icgpt.errors import IcgptError

Message = dict[str, Any]


def files_of(checkpoint: Checkpoint, precision: str | None) -> Message:
    """The first line: what a worker is to load."""
    files = {kind: str(file.path) for kind, file in checkpoint.files.items()}
    return {"files": files, "precision": precision}


def logprobs_to_json(event: Event) -> list[list[Any]]:
    """Per place: the chosen token with its log-probability, then the likeliest with theirs."""
    return [
        [[one.token_id, one.logprob] for one in (place.chosen, *place.top)]
        for place in event.logprobs
    ]


@dataclass
class Worker:
    """An engine, and who asked for what runs on it."""

    engine: Engine
    out: BinaryIO
    askers: dict[int, int] = field(default_factory=dict)
    """The asker's number, by the engine's."""
    left: dict[int, int] = field(default_factory=dict)
    """How many answers are still to be finished, by the engine's number."""

    def tell(self, message: Message) -> None:
        """Sends a line."""
        self.out.write(json.dumps(message).encode() + b"\n")
        self.out.flush()

    def do(self, message: Message) -> None:
        """Does what a line asks for; what makes no sense is told to who asked."""
        number = message["id"]
        try:
            match message["do"]:
                case "submit":
                    taken = self.engine.submit(message["token_ids"], **message["options"])
                    self.askers[taken.id], self.left[taken.id] = number, taken.sequences
                    told = {"seed": taken.seed, "prompt": taken.prompt_tokens}
                    self.tell({"id": number, **told, "sequences": taken.sequences})
                case "cancel":
                    for ours in [one for one, asker in self.askers.items() if asker == number]:
                        self.engine.cancel(ours)
                        del self.askers[ours], self.left[ours]
                case "score":
                    scores = self.engine.score(message["token_ids"], message["continuation"])
                    self.tell({"id": number, "scores": scores})
        except IcgptError as error:
            if isinstance(error, EngineError) and not isinstance(error, EngineMemoryError):
                raise
            self.tell({"id": number, "error": [error.kind, error.message, error.hint]})

    def step(self) -> None:
        """Lets all answers get on, and tells what is new."""
        for event in self.engine.step():
            asker = self.askers[event.id]
            news: Message = {"id": asker, "token_ids": event.token_ids}
            if event.index:
                news["index"] = event.index
            if event.logprobs:
                news["logprobs"] = logprobs_to_json(event)
            if event.finish is not None:
                news |= {"finish": event.finish, "failure": event.failure}
                news["score"] = event.score
                self.left[event.id] -= 1
                if not self.left[event.id]:
                    news["last"] = True
                    del self.askers[event.id], self.left[event.id]
            self.tell(news)

    def run(self, lines: queue.SimpleQueue[bytes]) -> None:
        """Works until there is nobody to work for."""
        while True:
            if self.engine.running:
                while not lines.empty():
                    self.do(json.loads(lines.get()))
                self.step()
            else:
                self.do(json.loads(lines.get()))


def load(first: Message) -> Engine:
    """The engine with the model that the first line names."""
    paths = {kind: Path(path) for kind, path in first["files"].items()}
    config = parse_config(paths["config"].read_bytes())
    files = {kind: SourceFile(kind, path, path.stat().st_size) for kind, path in paths.items()}
    return Engine.load(Checkpoint("model", config, files, 0), first["precision"])


def main() -> None:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the service's to deal with
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    out = sys.stdout.buffer
    try:
        engine = load(json.loads(lines.get()))
    except (IcgptError, OSError) as error:
        told = error if isinstance(error, IcgptError) else IcgptError(str(error))
        out.write(json.dumps({"failed": [told.kind, told.message, told.hint]}).encode() + b"\n")
        out.flush()
        sys.exit(1)
    worker = Worker(engine, out)
    worker.tell({"ready": engine.memory()})
    worker.run(lines)


if __name__ == "__main__":
    main()

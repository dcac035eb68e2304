"""Mixed requests for minutes, while engines are killed at random moments: no wrong answer, no leak.

Clients ask for whole answers, streams, several at once, conversations and tokens, hang up in the
middle, and send what makes no sense. Every answer must be the one that an engine gives that nobody
kills. In the end nothing may be running, and the service must not have grown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from icgpt.checkpoint import open_checkpoint
from icgpt.engine import Engine
from icgpt.texts import load_tokenizer

CLIENTS = 6
PROMPTS = ("ROMEO:", "JULIET:\n", "To be, or", "A", "What is ", "My lord, the ", "O, ", "KING ")
KILL_AFTER = (1.0, 8.0)  # seconds, at random
SECONDS = 120


class WrongError(Exception):
    """The service gave what it should not have."""


def expected() -> dict[tuple[str, int, int], str]:
    """What each request is answered with: prompt, seed and length to text."""
    checkpoint = open_checkpoint("shakespeare-char")
    tokenizer = load_tokenizer(checkpoint)
    found = {}
    with Engine.load(checkpoint, "int8") as engine:
        asked = {}
        for seed, prompt in enumerate(PROMPTS):
            for tokens in (5, 60, 400):
                ids = tokenizer.encode(prompt).ids
                number = engine.submit(ids, seed=seed, max_new_tokens=tokens).id
                asked[number] = (prompt, seed, tokens)
        written: dict[int, list[int]] = {number: [] for number in asked}
        while engine.running:
            for event in engine.step():
                written[event.id] += event.token_ids
    for number, key in asked.items():
        found[key] = str(tokenizer.decode(written[number]))
    return found


class Soak:
    """One run."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._wanted = expected()
        self._end = threading.Event()
        self._wrong: list[str] = []
        self.done: Counter[str] = Counter()
        self.memory_mb: list[float] = []
        command = [sys.executable, "-m", "icgpt", "serve", "--local", "shakespeare-char"]
        self._service = subprocess.Popen(
            [*command, "--instances", "2", "--at-once", "2", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._service.stdout is not None
        self._url = self._service.stdout.readline().strip()

    def run(self, seconds: float) -> None:
        """Goes on for so long."""
        rounds: list[Callable[[], None]] = [self._kill, self._watch]
        for place in range(CLIENTS):
            rounds.append(self._client(random.Random(self._random.random() + place)))
        threads = [threading.Thread(target=self._again, args=(one,)) for one in rounds]
        for one in threads:
            one.start()
        self._end.wait(seconds)
        self._end.set()
        for one in threads:
            one.join()
        if not self._wrong:
            self._check_empty()
        if self._wrong:
            raise WrongError("\n".join(self._wrong))

    def _again(self, work: Callable[[], None]) -> None:
        while not self._end.is_set():
            try:
                work()
            except (WrongError, requests.RequestException, KeyError, ValueError) as error:
                self._wrong.append(repr(error))
                self._end.set()

    def _kill(self) -> None:
        self._end.wait(self._random.uniform(*KILL_AFTER))
        engines = self._children()
        if engines:
            with contextlib.suppress(ProcessLookupError):  # killed before, and not yet replaced
                os.kill(self._random.choice(engines), signal.SIGKILL)
                self.done["kills"] += 1

    def _children(self) -> list[int]:
        pid = self._service.pid
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(one) for task in tasks for one in task.read_text().split()]

    def _watch(self) -> None:
        self._end.wait(1)
        status = Path(f"/proc/{self._service.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        self.memory_mb.append(int(line.split()[1]) / 1e3)

    def _client(self, chance: random.Random) -> Callable[[], None]:
        works = (self._whole, self._stream, self._several, self._cut, self._tokens, self._nonsense)
        return lambda: chance.choice(works)(chance)

    def _post(self, path: str, body: Any, **more: Any) -> requests.Response:
        response = requests.post(self._url + path, json=body, timeout=SECONDS, **more)
        if response.status_code >= 500:
            raise WrongError(f"{path}: {response.status_code} {response.text}")
        return response

    def _any(self, chance: random.Random) -> tuple[dict[str, Any], str]:
        key = chance.choice(list(self._wanted))
        return {"prompt": key[0], "seed": key[1], "max_tokens": key[2]}, self._wanted[key]

    def _hold(self, what: str, found: str, wanted: str) -> None:
        if found != wanted:
            raise WrongError(f"{what}: {found!r} instead of {wanted!r}")
        self.done[what] += 1

    def _whole(self, chance: random.Random) -> None:
        body, wanted = self._any(chance)
        done = self._post("/v1/completions", body).json()
        self._hold("whole", done["choices"][0]["text"], wanted)

    def _several(self, chance: random.Random) -> None:
        body, wanted = self._any(chance)
        done = self._post("/v1/completions", {**body, "n": 3}).json()
        self._hold("several", done["choices"][0]["text"], wanted)

    def _stream(self, chance: random.Random) -> None:
        body, wanted = self._any(chance)
        text = ""
        with self._post("/v1/completions", {**body, "stream": True}, stream=True) as answer:
            for line in answer.iter_lines():
                if line.startswith(b"data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
        self._hold("streams", text, wanted)

    def _cut(self, chance: random.Random) -> None:
        body, _ = self._any(chance)
        with self._post("/v1/completions", {**body, "stream": True}, stream=True) as answer:
            lines = answer.iter_lines()
            for _ in range(chance.randrange(1, 6)):
                next(lines, None)
        self.done["cut"] += 1

    def _tokens(self, chance: random.Random) -> None:
        text = chance.choice(PROMPTS)
        ids = self._post("/tokenize", {"text": text}).json()["token_ids"]
        again = self._post("/detokenize", {"token_ids": ids}).json()["text"]
        self._hold("tokens", again, text)

    def _nonsense(self, chance: random.Random) -> None:
        body = chance.choice(({"prompt": 1}, {"prompt": "A", "n": 99}, {"prompt": "A" * 4000}, 7))
        status = self._post("/v1/completions", body).status_code
        self._hold("nonsense", str(status // 100), "4")

    def _check_empty(self) -> None:
        time.sleep(1)
        text = requests.get(self._url + "/metrics", timeout=SECONDS).text
        for line in ("icgpt_running 0.0", "icgpt_waiting 0.0"):
            if line not in text:
                self._wrong.append(f"not {line} in the end")

    def close(self) -> None:
        """Ends the service."""
        self._end.set()
        self._service.terminate()
        self._service.wait(SECONDS)

    def growth(self) -> float:
        """How much larger the service was in the last quarter than in the second."""
        quarter = max(1, len(self.memory_mb) // 4)
        return max(self.memory_mb[-quarter:]) / max(self.memory_mb[quarter : 2 * quarter]) - 1


def soak(minutes: float, seed: int) -> dict[str, Any]:
    """Runs, and returns what was done; raises WrongError."""
    run = Soak(seed)
    try:
        run.run(60 * minutes)
    finally:
        run.close()
    return {
        **run.done,
        "memory_mb": round(run.memory_mb[-1], 1),
        "growth_percent": round(100 * run.growth(), 2),
    }


def main() -> None:
    """Runs for the minutes asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    print(json.dumps(soak(options.minutes, options.seed), indent=2))


if __name__ == "__main__":
    main()

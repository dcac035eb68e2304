"""A model in this process, and many answers that it writes at once.

    with Engine.load(open_checkpoint("shakespeare-char"), "int8") as engine:
        job = engine.submit(token_ids, max_new_tokens=20, seed=1)
        while engine.running:
            for event in engine.step():
                print(event.id, event.token_ids, event.finish)

The tokens are those that a canister gives for the same model, precision, options and seed. Texts
are the caller's business; a tokenizer.json is only loaded for stop strings. An engine belongs to
one thread at a time.
"""

from __future__ import annotations

import math
import secrets
import struct
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from icgpt import candid
from icgpt.checkpoint import Checkpoint, Config
from icgpt.engine.instance import FileSource, Instance
from icgpt.engine.packing import OnBytes, bits_of, read_small
from icgpt.errors import UsageError
from icgpt.interface import OPTIONS, TOKEN_IDS
from icgpt.methods import option_values
from icgpt.results import Logprob, TokenLogprobs

_FINISHES: Final = (None, "stop", "length", "context", "failed")
_EXHAUSTED: Final = (
    "no token is left to choose from: the n-gram bans and min_new_tokens forbid all of them, or "
    "the model's numbers are broken"
)
_PACKED: Final = 0


@dataclass(frozen=True)
class Submitted:
    """A request that was taken in."""

    id: int
    seed: int
    """With this seed the same answer can be had again."""
    prompt_tokens: int
    """Length of the prompt, template included."""
    sequences: int = 1
    """How many answers there will be: num_return_sequences."""


@dataclass(frozen=True)
class Event:
    """What is new of an answer."""

    id: int
    token_ids: list[int]
    """The new tokens since the last event."""
    logprobs: list[TokenLogprobs]
    """One for each of them, if they were asked for."""
    finish: str | None
    """"stop", "length", "context" or "failed" with its last event; None before."""
    failure: str | None = None
    index: int = 0
    """Which of the request's answers; those of a search come when it is over, the best first."""
    score: float | None = None
    """What a search thinks of the answer; None where nothing was searched."""


class Engine:
    """A loaded model. `load` makes one."""

    def __init__(self, instance: Instance, weights: FileSource, config: Config) -> None:
        self._instance = instance
        self._weights = weights  # a model larger than memory is read while it runs
        self._last = 0
        self.config = config
        self.running = 0
        """Requests that are being answered."""
        self._deadlines: dict[int, float] = {}

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        precision: str | None = None,
        packed: Path | None = None,
        report: OnBytes = lambda done, total: None,
    ) -> Engine:
        """Brings a model into memory.

        Args:
            checkpoint: the model.
            precision: "f32", "int8" or "int16". Without it the model's own, or f32.
            packed: a file that `pack` wrote of it, which is read instead of the checkpoint's
                weights; it has a precision already.
            report: told how far it is.
        """
        precision = precision or checkpoint.config.precision or "f32"
        weights = packed or checkpoint.files["safetensors"].path
        bits = bits_of(precision) if packed is None else _PACKED
        instance = Instance()
        source = None
        try:
            instance.prefer_large_pages()
            if "tokenizer" in checkpoint.files:
                instance.call("set_tokenizer", data=read_small(checkpoint, "tokenizer"))
            instance.source = source = FileSource(weights)
            config = read_small(checkpoint, "config")
            _, answer = instance.call("load", source.length, bits, data=config)
            total = int.from_bytes(answer, "little")
            report(0, total)
            finished = 0
            while not finished:
                finished, answer = instance.call("load_on")
                report(int.from_bytes(answer, "little"), total)
        except BaseException:
            if source is not None:
                source.close()
            instance.close()
            raise
        return cls(instance, source, checkpoint.config)

    def submit(self, token_ids: Sequence[int], **options: Any) -> Submitted:
        """Takes in a request: the prompt's ids, and options as in docs/options.md.

        A seed is drawn when none is given. `echo` is left to the caller, who has the prompt.
        `max_time` is looked at between steps.
        """
        values = option_values(options)
        seed = values["seed"] if values["seed"] is not None else secrets.randbits(64)
        try:
            data = candid.encode((TOKEN_IDS, OPTIONS), (list(token_ids), values))
        except candid.CandidError as error:
            raise UsageError(f"the request can't be encoded: {error}") from error
        number = self._last + 1
        _, answer = self._instance.call("submit", number, _signed(seed), data=data)
        self._last = number
        self.running += 1
        if values["max_time"] is not None:
            self._deadlines[number] = time.monotonic() + values["max_time"]
        count = values["num_return_sequences"] or 1
        return Submitted(number, seed, int.from_bytes(answer, "little"), count)

    def step(self, passes: int = 1) -> list[Event]:
        """Lets all answers get on, by a token or by a piece of the prompt in each pass."""
        if passes < 1:
            raise UsageError("a step is one pass at least")
        self._hurry()
        self.running, answer = self._instance.call("run", min(passes, 1 << 30))
        return list(_events(answer))

    def _hurry(self) -> None:
        """Lets those whose time is over end with their next token."""
        now = time.monotonic()
        for number in [one for one, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[number]
            self._instance.call("hurry", number)

    def cancel(self, number: int) -> bool:
        """Drops an answer; False when there is none of this id any more."""
        if not 0 < number <= self._last:
            return False
        self._deadlines.pop(number, None)
        found, _ = self._instance.call("cancel", number)
        self.running -= found
        return bool(found)

    def logits(self, token_ids: Sequence[int]) -> list[float]:
        """The logits of the token that follows, one for each id of the vocabulary."""
        _, answer = self._instance.call("logits", data=_words(token_ids))
        return array("f", answer).tolist()

    def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
        """Log-probabilities of a continuation's tokens."""
        data = _words(prompt) + _words(continuation)
        _, answer = self._instance.call("score", len(prompt), data=data)
        return array("f", answer).tolist()

    def memory(self) -> int:
        """Bytes of memory that the engine has."""
        return self._instance.memory()

    def close(self) -> None:
        """Drop the model and all answers."""
        self._instance.close()
        self._weights.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _events(answer: bytes) -> Iterator[Event]:
    """Reads what `run` gives: see canister/inprocess/src/running.rs."""
    words = array("I", answer)
    at = 0
    while at < len(words):
        low, high, index, reason, score, count, places = words[at : at + 7]
        at += 7
        tokens = words[at : at + count].tolist()
        at += count
        logprobs = []
        for _ in range(places):
            chosen = _logprob(words, at)
            likeliest = words[at + 2]
            at += 3
            top = [_logprob(words, at + 2 * i) for i in range(likeliest)]
            at += 2 * likeliest
            logprobs.append(TokenLogprobs(chosen, top))
        finish = _FINISHES[reason]
        failure = _EXHAUSTED if finish == "failed" else None
        points = _float(score)
        yield Event(
            high << 32 | low,
            tokens,
            logprobs,
            finish,
            failure,
            index,
            None if math.isnan(points) else points,
        )


def _logprob(words: array[int], at: int) -> Logprob:
    return Logprob(words[at], _float(words[at + 1]))


def _float(word: int) -> float:
    (value,) = struct.unpack("<f", struct.pack("<I", word))
    return float(value)


def _words(token_ids: Sequence[int]) -> bytes:
    try:
        return array("I", token_ids).tobytes()
    except (OverflowError, TypeError) as error:
        raise UsageError(f"these are no token ids: {error}") from error


def _signed(value: int) -> int:
    """A number of 64 bits as WebAssembly takes it."""
    return value - (1 << 64) if value >> 63 else value

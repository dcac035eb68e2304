"""What the model canister answers, as dataclasses; `to_json` gives what `--json` prints.

Candid decodes to plain dicts; the `from_candid` functions here turn them into these types. A
variant such as {"stop": None} becomes its name, hashes stay bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from icgpt.principal import to_text

FILES = ("safetensors", "config", "tokenizer")


@dataclass(frozen=True)
class FileInfo:
    """Length and SHA-256 of bytes that the canister holds."""

    length: int
    sha256: bytes

    @classmethod
    def from_candid(cls, value: dict[str, Any]) -> FileInfo:
        """From the `FileInfo` of the interface."""
        return cls(value["length"], value["sha256"])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"length": self.length, "sha256": self.sha256.hex()}


@dataclass(frozen=True)
class FileState:
    """One uploaded file: what is being sent, and what the running model was made of."""

    staged: FileInfo | None
    stored: bool
    live: FileInfo | None

    @classmethod
    def from_candid(cls, value: dict[str, Any]) -> FileState:
        """From the `FileState` of the interface."""
        staged, live = value["staged"], value["live"]
        return cls(
            FileInfo.from_candid(staged) if staged else None,
            value["stored"],
            FileInfo.from_candid(live) if live else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "staged": self.staged.to_json() if self.staged else None,
            "stored": self.stored,
            "live": self.live.to_json() if self.live else None,
        }


@dataclass(frozen=True)
class Arrived:
    """An upload that was begun: what it is to be, and what has arrived of it."""

    length: int
    sha256: bytes
    arrived: int
    """How many bytes have arrived."""
    missing: list[tuple[int, int]]
    """Where what has not arrived begins, and where it ends; in order."""
    hashed: FileInfo
    """What is hashed, from the first byte on."""
    committed: bool

    @classmethod
    def from_candid(cls, value: dict[str, Any]) -> Arrived:
        """From the `Upload` of the interface."""
        return cls(
            value["length"],
            value["sha256"],
            value["arrived"],
            [(one["start"], one["end"]) for one in value["missing"]],
            FileInfo.from_candid(value["hashed"]),
            value["committed"],
        )


@dataclass(frozen=True)
class Template:
    """Token ids put round a prompt, and those that end an answer."""

    prefix: list[int]
    suffix: list[int]
    stop: list[int]


@dataclass(frozen=True)
class Architecture:
    """Family and sizes of a model."""

    family: str
    n_layer: int
    n_head: int
    n_embd: int
    n_ctx: int
    n_inner: int
    vocab_size: int
    activation: str
    tied: bool
    parameters: int


@dataclass(frozen=True)
class ModelInfo:
    """The model that a canister runs, or how far its setup has come."""

    setup: str
    """"empty", "setting_up" or "ready"."""
    setup_done: int
    setup_total: int
    name: str | None
    """What managers call it."""
    architecture: Architecture | None
    precision: str
    next_precision: str | None
    """What a manager chose for the next set-up."""
    layout_sha256: bytes | None
    """SHA-256 of the weights as they are packed for the kernels."""
    streamed: bool
    """Some weights are not in the heap but read from stable memory whenever they are needed."""
    source_sha256: dict[str, bytes | None]
    template: Template | None
    context: str
    tokenizer: bool
    layout_version: int
    module_version: str

    @property
    def ready(self) -> bool:
        """Whether the model answers."""
        return self.setup == "ready"

    @classmethod
    def from_candid(cls, value: dict[str, Any]) -> ModelInfo:
        """From the `ModelInfo` of the interface."""
        ((setup, progress),) = value["setup"].items()
        architecture, template = value["architecture"], value["template"]
        sources = value["source_sha256"]
        return cls(
            setup=setup,
            setup_done=progress["done"] if progress else 0,
            setup_total=progress["total"] if progress else 0,
            name=value["name"],
            architecture=Architecture(**architecture) if architecture else None,
            precision=value["precision"],
            next_precision=value["next_precision"],
            layout_sha256=value["layout_sha256"],
            streamed=bool(value["streamed"]),
            source_sha256={name: sources[name] for name in FILES},
            template=Template(**template) if template else None,
            context=value["context"],
            tokenizer=value["tokenizer"],
            layout_version=value["layout_version"],
            module_version=value["module_version"],
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        sources = {n: h.hex() if h is not None else None for n, h in self.source_sha256.items()}
        layout = self.layout_sha256
        return {
            "setup": self.setup,
            "setup_done": self.setup_done,
            "setup_total": self.setup_total,
            "name": self.name,
            "architecture": vars(self.architecture) if self.architecture else None,
            "precision": self.precision,
            "next_precision": self.next_precision,
            "layout_sha256": layout.hex() if layout is not None else None,
            "streamed": self.streamed,
            "source_sha256": sources,
            "template": vars(self.template) if self.template else None,
            "context": self.context,
            "tokenizer": self.tokenizer,
            "layout_version": self.layout_version,
            "module_version": self.module_version,
        }


@dataclass(frozen=True)
class Access:
    """Who may use a canister; principals as raw bytes."""

    managers: list[bytes]
    users: list[bytes]
    public: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "public": self.public,
            "managers": [to_text(one) for one in self.managers],
            "users": [to_text(one) for one in self.users],
        }


@dataclass(frozen=True)
class Quotas:
    """How much callers may ask for. None is no limit."""

    user_tokens_per_day: int | None
    """Of each listed user."""
    user_jobs: int
    """Of each listed user at once."""
    public_tokens_per_day: int | None
    """Of all together whom only public mode lets in."""
    public_jobs: int
    queue: int
    """Jobs that may wait."""
    cycles_floor: int
    """With fewer cycles the canister takes no new work."""


@dataclass(frozen=True)
class Usage:
    """What a caller has used of its quota."""

    role: str
    """"manager", "user" or "public"."""
    tokens_today: int
    tokens_left: int | None
    """None when there is no limit."""


@dataclass(frozen=True)
class Encoding:
    """A text's token ids, and each token's own text."""

    token_ids: list[int]
    tokens: list[str]


@dataclass(frozen=True)
class Logprob:
    """A token and the natural logarithm of its probability, before every option."""

    token_id: int
    logprob: float


@dataclass(frozen=True)
class TokenLogprobs:
    """The log-probabilities at one place of an answer."""

    chosen: Logprob
    top: list[Logprob]
    """The likeliest tokens, the likeliest first."""

    @classmethod
    def from_candid(cls, value: dict[str, Any]) -> TokenLogprobs:
        """From the `TokenLogprobs` of the interface."""
        return cls(Logprob(**value["chosen"]), [Logprob(**one) for one in value["top"]])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"chosen": vars(self.chosen), "top": [vars(one) for one in self.top]}


@dataclass(frozen=True)
class Sequence:
    """One of several answers to a request."""

    token_ids: list[int]
    text: str | None
    """None when the model has no tokenizer."""
    finish: str
    failure: str | None
    logprobs: list[TokenLogprobs] | None = None
    """One for each new token; None unless they were asked for."""
    score: float | None = None
    """What a search thinks of it; None where nothing was searched."""

    @classmethod
    def from_candid(cls, value: dict[str, Any]) -> Sequence:
        """From the `Sequence` of the interface."""
        ((reason, failure),) = value["finish"].items()
        return cls(
            token_ids=[int(one) for one in value["token_ids"]],
            text=value["text"],
            finish=reason,
            failure=failure,
            logprobs=_logprobs(value["logprobs"]),
            score=value["score"],
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; log-probabilities and scores only where there are some."""
        value = {name: one for name, one in vars(self).items() if name != "logprobs"}
        if self.score is None:
            del value["score"]
        if self.logprobs is not None:
            value["logprobs"] = [one.to_json() for one in self.logprobs]
        return value


@dataclass(frozen=True)
class Completion:
    """What a model wrote. Token ids are the new ones; with `echo`, the prompt's come first."""

    token_ids: list[int]
    text: str | None
    """None when the model has no tokenizer."""
    finish: str | None
    """"stop", "length", "context", "cancelled" or "failed"; None while it is being written."""
    failure: str | None
    seed: int
    prompt_tokens: int
    instructions: int
    logprobs: list[TokenLogprobs] | None = None
    """One for each new token; None unless they were asked for."""
    job: bytes | None = None
    """The job's id, where one call waited for it: for `poll` and `receipt`."""
    canister: bytes | None = None
    """Which canister of a fleet wrote it, or the end of it."""
    sequences: list[Sequence] | None = None
    """All answers, the first among them, where several were asked for or weighed by beams; of a
    job that is polled, once all have ended."""

    @classmethod
    def from_candid(cls, value: dict[str, Any]) -> Completion:
        """From the `Completion` or `Progress` of the interface."""
        finish = value["finish"]
        ((reason, failure),) = finish.items() if finish else ((None, None),)
        return cls(
            token_ids=[int(one) for one in value["token_ids"]],
            text=value["text"],
            finish=reason,
            failure=failure,
            seed=value["seed"],
            prompt_tokens=value["prompt_tokens"],
            instructions=value["instructions"],
            logprobs=_logprobs(value.get("logprobs")),
            job=value.get("job"),
            sequences=_sequences(value.get("sequences")),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; log-probabilities only where there are some."""
        value = dict(vars(self))
        del value["logprobs"], value["job"], value["canister"], value["sequences"]
        if self.logprobs is not None:
            value["logprobs"] = [one.to_json() for one in self.logprobs]
        if self.job is not None:
            value["job"] = self.job.hex()
        if self.canister is not None:
            value["canister"] = to_text(self.canister)
        if self.sequences is not None:
            value["sequences"] = [one.to_json() for one in self.sequences]
        return value


@dataclass(frozen=True)
class RunningJob:
    """A job that has not ended."""

    job: bytes
    owner: bytes
    """Who asked: a principal."""
    submitted: bool
    """Whether it goes on by itself; a call waits for it otherwise."""
    running: bool
    """Whether it runs; it waits for its turn otherwise."""
    prompt_tokens: int
    tokens: int
    """Of its answers so far, those that it began with included."""
    max_tokens: int
    """That its answers may have."""
    instructions: int

    @classmethod
    def from_candid(cls, value: dict[str, Any]) -> RunningJob:
        """From the `RunningJob` of the interface."""
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "job": self.job.hex(), "owner": to_text(self.owner)}


def _sequences(value: list[dict[str, Any]] | None) -> list[Sequence] | None:
    return None if value is None else [Sequence.from_candid(one) for one in value]


def _logprobs(value: list[dict[str, Any]] | None) -> list[TokenLogprobs] | None:
    return None if value is None else [TokenLogprobs.from_candid(one) for one in value]

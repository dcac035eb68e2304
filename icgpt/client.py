"""ModelCanister: a GPT on the Internet Computer, as a Python object.

    with ModelCanister.connect("model") as model:
        print(model.generate("what is the capital of France?", 10, 0.2))

One method for each of the canister's, in Python's types; answers are the dataclasses of
`icgpt.results`. A method that the canister refuses raises RefusedError with the canister's words.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from icgpt import candid
from icgpt.agent import UPDATE_SECONDS, Agent
from icgpt.errors import CallTimeoutError, CanisterError, IcgptError, UsageError
from icgpt.identity import Identity
from icgpt.interface import METHODS, OPTION_TYPES
from icgpt.principal import from_text, to_text
from icgpt.receipts import Receipt, verify
from icgpt.results import (
    Access,
    Completion,
    Encoding,
    FileInfo,
    FileState,
    ModelInfo,
    Quotas,
    Usage,
)
from icgpt.transport import Closing

BLOB_HEAD: Final = b"DIDL\x01\x6d\x7b\x01\x00"  # a message with one argument, of type vec nat8
OPTION_NAMES: Final = tuple(OPTION_TYPES)


class ModelCanister(Closing):
    """Calls on one model canister. `close()` it, or use it as a context manager.

    Args:
        agent: whose network, identity and connections are used.
        canister_id: the canister, as raw bytes or text.
    """

    def __init__(self, agent: Agent, canister_id: bytes | str) -> None:
        self.agent = agent
        if isinstance(canister_id, str):
            try:
                canister_id = from_text(canister_id)
            except ValueError as error:
                raise UsageError(
                    str(error),
                    "Give an id, or connect by name: ModelCanister.connect(NAME)",
                ) from error
        self.id = canister_id

    @classmethod
    def connect(
        cls,
        canister: str = "model",
        network: str | None = None,
        identity: str | Identity | None = None,
    ) -> ModelCanister:
        """Finds a canister by name or id.

        Args:
            canister: a name that the project's files have an id for, or a canister id.
            network: "local", "ic" or an address; $ICGPT_NETWORK or else "local" when left out.
            identity: a PEM file, "anonymous" or an Identity; the default key when left out.
        """
        from icgpt import connect, project
        from icgpt.identity import load

        target = connect.resolve(network)
        who = identity if isinstance(identity, Identity) else load(identity)
        canister_id = project.find().resolve(canister, target.name)
        return cls(connect.connect(target, who), canister_id)

    # --- Writing text

    def generate(self, text: str, max_new_tokens: int = 10, temperature: float = 0.2) -> str:
        """The answer to a text by the seed's own method: up to 100 tokens, temperature 0 to 2."""
        return str(self._checked("generate", text, max_new_tokens, temperature))

    def infer(
        self, token_ids: Sequence[int], max_new_tokens: int = 1, temperature: float = 0.2
    ) -> list[int]:
        """The ids that follow these ids, by the seed's own `inference`; no template is applied."""
        record = self._checked("inference", list(token_ids), max_new_tokens, temperature)
        return [int(one) for one in _ok(record["result"])]

    def complete(self, prompt: str | Sequence[int], **options: Any) -> Completion:
        """The whole answer to a text or to token ids, in one call.

        Args:
            prompt: a text, or token ids.
            **options: max_new_tokens, min_new_tokens, temperature, top_k, top_p, typical_p,
                repetition_penalty, no_repeat_ngram_size, encoder_no_repeat_ngram_size, stop (a
                text or several), seed, logprobs, context ("stop" or "slide"), template (False to
                leave the model's own aside), echo; docs/options.md says what each does. What is
                left out, or None, is the canister's default.
        """
        answer = self._checked("complete", _prompt(prompt), _options(options))
        return Completion.from_candid(answer)

    def complete_query(self, prompt: str | Sequence[int], **options: Any) -> Completion:
        """The same answer by queries, which cost no cycles; takes what `complete` takes.

        One query is short, so several go on from each other. Without a seed one is drawn here.
        """
        options = {"seed": secrets.randbits(64), **options}
        while True:
            answer = self._checked("complete_query", _prompt(prompt), _options(options))
            done = Completion.from_candid(answer)
            if done.finish is not None:
                return done
            skip = done.prompt_tokens if options.get("echo") else 0
            options["begun"] = done.token_ids[skip:]

    def stream(self, prompt: str | Sequence[int], **options: Any) -> Stream:
        """The answer piece by piece as it is written; takes what `complete` takes."""
        job = self.submit(prompt, **options)
        return Stream(self, job)

    def submit(self, prompt: str | Sequence[int], **options: Any) -> bytes:
        """Starts a job and returns its id; takes what `complete` takes."""
        return bytes(self._checked("submit", _prompt(prompt), _options(options)))

    def poll(self, job: bytes, start: int = 0) -> Completion:
        """What a job has written, from the token numbered `start` on."""
        return Completion.from_candid(self._checked("poll", job, start))

    def cancel(self, job: bytes) -> None:
        """Ends a job; what it has written can still be polled."""
        self._checked("cancel", job)

    def proof(self, job: bytes) -> dict[str, bytes]:
        """What proves a finished job, to be kept: see `icgpt.receipts.verify`."""
        return dict(self._checked("job_certificate", job))

    def receipt(self, job: bytes) -> Receipt:
        """A finished job as the subnet vouches for it, by a query and checked here."""
        return verify(self.proof(job), job, self.id, self.agent.root_key)

    # --- Tokens and probabilities

    def tokenize(self, text: str) -> Encoding:
        """The token ids of a text."""
        answer = self._checked("tokenize", text)
        return Encoding([int(one) for one in answer["token_ids"]], answer["tokens"])

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids."""
        return str(self._checked("decode_batch", list(token_ids)))

    def decode_each(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token id by itself."""
        return [str(one) for one in self._checked("decode", list(token_ids))]

    def logits(self, token_ids: Sequence[int]) -> list[float]:
        """The logits of the token that would follow: one for each id of the vocabulary."""
        return [float(one) for one in self._checked("logits", list(token_ids))]

    def score(self, token_ids: Sequence[int], continuation: Sequence[int]) -> list[float]:
        """Natural-log probability of each token of `continuation` after what stands before it."""
        answer = self._checked("score", list(token_ids), list(continuation))
        return [float(one) for one in answer]

    # --- The model and its files

    def info(self) -> ModelInfo:
        """The model that is running, or how far its setup has come."""
        return ModelInfo.from_candid(self.call("model_info"))

    def files(self) -> dict[str, FileState]:
        """What has arrived of each of the three files."""
        return {name: FileState.from_candid(v) for name, v in self.call("files").items()}

    def length(self, file: str) -> int:
        """How many bytes of a file ("safetensors", "config", "tokenizer") have arrived."""
        return int(self.call(f"{_file(file)}_bytes_length"))

    def append(self, file: str, data: bytes) -> FileInfo:
        """Adds bytes to a file; answers what the file is now."""
        arg = b"".join((BLOB_HEAD, candid.unsigned_leb128(len(data)), data))
        return FileInfo.from_candid(self._call_encoded(f"append_{_file(file)}_bytes", arg))

    def clear(self, file: str) -> None:
        """Drops what has been staged of a file."""
        self.call(f"clear_{_file(file)}_bytes")

    def store(self, file: str) -> FileInfo:
        """Moves a staged file ("safetensors" or "tokenizer") to stable memory."""
        return FileInfo.from_candid(self.call(f"store_{_file(file)}_bytes_to_stable"))

    def load(self, file: str) -> FileInfo:
        """Reads a stored file ("safetensors" or "tokenizer") back from stable memory."""
        return FileInfo.from_candid(self.call(f"load_{_file(file)}_bytes_from_stable"))

    def setup_model(
        self, seconds: float = 3600.0, on_wait: Callable[[], None] | None = None
    ) -> None:
        """Makes the uploaded files the running model; large ones take a while."""
        _ok(self.call("setup_model", seconds=seconds, on_wait=on_wait))

    def set_precision(self, precision: str | None) -> None:
        """Chooses "f32", "int8" or "int16" for the next set-up; None: what config.json says.

        A set-up that succeeds spends the choice.
        """
        self._checked("set_precision", precision)

    def setup_tokenizer(self) -> None:
        """Makes the uploaded tokenizer the running one."""
        fault = self.call("setup_tokenizer")
        if fault is not None:
            raise CanisterError(str(fault))

    # --- Who may use it

    def access(self) -> Access:
        """Managers, users and whether anyone may use the model."""
        return Access(**self.call("access"))

    def set_public(self, public: bool) -> None:
        """Lets anyone use the model, or only users and managers."""
        self.call("set_public_mode", public)

    def quotas(self) -> Quotas:
        """How much callers may ask for."""
        return Quotas(**self.call("quotas"))

    def set_quotas(self, quotas: Quotas) -> None:
        """Changes how much callers may ask for."""
        self._checked("set_quotas", vars(quotas))

    def usage(self) -> Usage:
        """What this identity has used of its quota."""
        return Usage(**self.call("usage"))

    def add_user(self, principal: bytes) -> None:
        """Lets a principal use the model."""
        self.call("add_user", principal)

    def remove_user(self, principal: bytes) -> None:
        """Takes a user off the list."""
        self.call("remove_user", principal)

    def add_manager(self, principal: bytes) -> None:
        """Lets a principal upload models and manage access."""
        self.call("add_manager", principal)

    def remove_manager(self, principal: bytes) -> None:
        """Takes a manager off the list."""
        self.call("remove_manager", principal)

    def is_manager(self, principal: bytes) -> bool:
        """Whether a principal may upload models, by the seed's own method."""
        return bool(self.call("is_principal_authorized", principal))

    def add_authorized_principal(self, principal: bytes) -> None:
        """The seed's own name of `add_manager`."""
        self.call("add_authorized_principal", principal)

    # --- Calls

    def call(
        self,
        method: str,
        *arguments: Any,
        seconds: float = UPDATE_SECONDS,
        on_wait: Callable[[], None] | None = None,
    ) -> Any:
        """Calls any method of the interface; its result as Candid decodes it."""
        kind = METHODS[method]
        try:
            arg = candid.encode(kind.arguments, arguments)
        except (candid.CandidError, TypeError, OverflowError) as error:
            raise UsageError(f"{method}: {error}") from error
        return self._call_encoded(method, arg, seconds, on_wait)

    def _call_encoded(
        self,
        method: str,
        arg: bytes,
        seconds: float = UPDATE_SECONDS,
        on_wait: Callable[[], None] | None = None,
    ) -> Any:
        kind = METHODS[method]
        if kind.query:
            reply = self.agent.query(self.id, method, arg)
        else:
            reply = self.agent.update(self.id, method, arg, seconds=seconds, on_wait=on_wait)
        try:
            results = candid.decode(reply, kind.results)
        except candid.CandidError as error:
            raise IcgptError(
                f"the canister {to_text(self.id)} and this package are of different versions: "
                f"its answer to '{method}' can't be read",
                "Bring the canister to this package's version: icgpt deploy",
            ) from error
        return results[0] if results else None

    def _checked(self, method: str, *arguments: Any) -> Any:
        return _ok(self.call(method, *arguments))

    def close(self) -> None:
        """Ends the connections."""
        self.agent.close()


class Stream:
    """A running job; iterating gives its pieces, each a Completion with what is new in it.

    A character that takes several tokens comes with the last of them. `completion` is the whole
    so far, and final once the iteration has ended.
    """

    def __init__(self, model: ModelCanister, job: bytes, idle_seconds: float = 600.0) -> None:
        self.model = model
        self.job = job
        self.idle_seconds = idle_seconds
        self.completion = Completion([], None, None, None, 0, 0, 0)

    def __iter__(self) -> Iterator[Completion]:
        pause = 0.02
        moved = time.monotonic()
        while self.completion.finish is None:
            piece = self.model.poll(self.job, len(self.completion.token_ids))
            if piece.token_ids or piece.finish is not None:
                self._add(piece)
                moved, pause = time.monotonic(), 0.02
                yield piece
                continue
            if time.monotonic() - moved > self.idle_seconds:
                raise CallTimeoutError(
                    f"the job has not moved for {self.idle_seconds:.0f} seconds",
                    "Look with `icgpt status`; the canister may be out of cycles.",
                )
            time.sleep(pause)
            pause = min(1.5 * pause, 0.5)
        if self.completion.finish == "failed":
            raise CanisterError(self.completion.failure or "the job failed")

    def _add(self, piece: Completion) -> None:
        before = self.completion
        text = None if piece.text is None else (before.text or "") + piece.text
        self.completion = Completion(
            before.token_ids + piece.token_ids,
            text,
            piece.finish,
            piece.failure,
            piece.seed,
            piece.prompt_tokens,
            piece.instructions,
            None if piece.logprobs is None else (before.logprobs or []) + piece.logprobs,
        )

    def cancel(self) -> None:
        """Ends the job."""
        self.model.cancel(self.job)


def _prompt(prompt: str | Sequence[int]) -> dict[str, Any]:
    return {"text": prompt} if isinstance(prompt, str) else {"token_ids": list(prompt)}


def _options(options: dict[str, Any]) -> dict[str, Any]:
    for name in options:
        if name not in OPTION_NAMES:
            raise UsageError(f"there is no option '{name}'", f"Options: {', '.join(OPTION_NAMES)}")
    stop = options.get("stop")
    if isinstance(stop, str):
        options = {**options, "stop": [stop]}
    return {name: options.get(name) for name in OPTION_NAMES}


def _file(name: str) -> str:
    if name not in ("safetensors", "config", "tokenizer"):
        raise UsageError(f"there is no file '{name}'", "Files: safetensors, config, tokenizer")
    return name


def _ok(result: Any) -> Any:
    """The `Ok` of a result; its `Err` is raised."""
    if "Err" in result:
        raise CanisterError(str(result["Err"]))
    return result["Ok"]

"""The methods of a model canister, as steps: what each takes, sends, reads and gives back.

`icgpt.client` makes blocking and awaited methods of them; what each refuses raises RefusedError
with the canister's words.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from icgpt import candid, protocol
from icgpt.errors import CanisterError, IcgptError, UsageError
from icgpt.interface import METHODS, OPTION_TYPES
from icgpt.principal import to_text
from icgpt.protocol import Caller
from icgpt.receipts import Receipt, verify
from icgpt.results import (
    Access,
    Arrived,
    Completion,
    Encoding,
    FileInfo,
    FileState,
    ModelInfo,
    Quotas,
    RunningJob,
    Usage,
)
from icgpt.steps import Steps

BLOB_HEAD: Final = b"DIDL\x01\x6d\x7b\x01\x00"  # a message with one argument, of type vec nat8
OPTION_NAMES: Final = tuple(OPTION_TYPES)


class Handle:
    """A canister, and who calls it."""

    agent: Caller
    id: bytes


# --- Writing text


def generate(
    canister: Handle, text: str, max_new_tokens: int = 10, temperature: float = 0.2
) -> Steps[str]:
    """The answer to a text by the seed's own method: up to 100 tokens, temperature 0 to 2."""
    return str((yield from checked(canister, "generate", text, max_new_tokens, temperature)))


def infer(
    canister: Handle, token_ids: Sequence[int], max_new_tokens: int = 1, temperature: float = 0.2
) -> Steps[list[int]]:
    """The ids that follow these ids, by the seed's own `inference`; no template is applied."""
    record = yield from checked(canister, "inference", list(token_ids), max_new_tokens, temperature)
    return [int(one) for one in ok(record["result"])]


def complete(canister: Handle, /, prompt: str | Sequence[int], **options: Any) -> Steps[Completion]:
    """The whole answer to a text or to token ids, in one call.

    Args:
        canister: the canister.
        prompt: a text, or token ids.
        **options: max_new_tokens, min_new_tokens, max_length, min_length, max_time, temperature,
            top_k, top_p, typical_p, repetition_penalty, no_repeat_ngram_size,
            encoder_no_repeat_ngram_size, logit_bias ({token id: what is added}),
            remove_invalid_values, num_beams, num_beam_groups, diversity_penalty,
            length_penalty, early_stopping (False, True or "never"), num_return_sequences, stop
            (a text or several), seed, logprobs, context ("stop" or "slide"), template (False
            to leave the model's own aside), echo; docs/options.md says what each does. What
            is left out, or None, is the canister's default.
    """
    answer = yield from checked(canister, "complete", prompt_value(prompt), option_values(options))
    return Completion.from_candid(answer)


def complete_query(
    canister: Handle, /, prompt: str | Sequence[int], **options: Any
) -> Steps[Completion]:
    """The same answer by queries, which cost no cycles; takes what `complete` takes.

    One query is short, so several go on from each other. Without a seed one is drawn here.
    """
    options = {"seed": secrets.randbits(64), **options}
    while True:
        answer = yield from checked(
            canister, "complete_query", prompt_value(prompt), option_values(options)
        )
        done = Completion.from_candid(answer)
        if done.finish is not None:
            return done
        skip = done.prompt_tokens if options.get("echo") else 0
        options["begun"] = done.token_ids[skip:]


def submit(canister: Handle, /, prompt: str | Sequence[int], **options: Any) -> Steps[bytes]:
    """Starts a job and returns its id; takes what `complete` takes."""
    return bytes(
        (yield from checked(canister, "submit", prompt_value(prompt), option_values(options)))
    )


def poll(canister: Handle, job: bytes, start: int = 0) -> Steps[Completion]:
    """What a job has written, from the token numbered `start` on."""
    return Completion.from_candid((yield from checked(canister, "poll", job, start)))


def jobs(canister: Handle) -> Steps[list[RunningJob]]:
    """Jobs that have not ended, the oldest first: of all callers for managers, else one's own."""
    found = yield from call(canister, "jobs")
    return [RunningJob.from_candid(one) for one in found]


def cancel(canister: Handle, job: bytes) -> Steps[None]:
    """Ends a job, as a manager anybody's; what it has written can still be polled."""
    yield from checked(canister, "cancel", job)


def proof(canister: Handle, job: bytes) -> Steps[dict[str, bytes]]:
    """What proves a finished job, to be kept: see `icgpt.receipts.verify`."""
    return dict((yield from checked(canister, "job_certificate", job)))


def receipt(canister: Handle, job: bytes) -> Steps[Receipt]:
    """A finished job as the subnet vouches for it, by a query and checked here."""
    return verify((yield from proof(canister, job)), job, canister.id, canister.agent.root_key)


# --- Tokens and probabilities


def tokenize(canister: Handle, text: str) -> Steps[Encoding]:
    """The token ids of a text."""
    answer = yield from checked(canister, "tokenize", text)
    return Encoding([int(one) for one in answer["token_ids"]], answer["tokens"])


def decode(canister: Handle, token_ids: Sequence[int]) -> Steps[str]:
    """The text of token ids."""
    return str((yield from checked(canister, "decode_batch", list(token_ids))))


def decode_each(canister: Handle, token_ids: Sequence[int]) -> Steps[list[str]]:
    """The text of each token id by itself."""
    return [str(one) for one in (yield from checked(canister, "decode", list(token_ids)))]


def logits(canister: Handle, token_ids: Sequence[int]) -> Steps[list[float]]:
    """The logits of the token that would follow: one for each id of the vocabulary."""
    return [float(one) for one in (yield from checked(canister, "logits", list(token_ids)))]


def score(
    canister: Handle, token_ids: Sequence[int], continuation: Sequence[int]
) -> Steps[list[float]]:
    """Natural-log probability of each token of `continuation` after what stands before it."""
    answer = yield from checked(canister, "score", list(token_ids), list(continuation))
    return [float(one) for one in answer]


# --- The model and its files


def info(canister: Handle) -> Steps[ModelInfo]:
    """The model that is running, or how far its setup has come."""
    return ModelInfo.from_candid((yield from call(canister, "model_info")))


def metrics(canister: Handle) -> Steps[str]:
    """What the canister counts, as Prometheus reads it; of its use, if this identity may use it."""
    request = {"method": "GET", "url": "/metrics", "headers": [], "body": b""}
    answer = yield from call(canister, "http_request", {**request, "certificate_version": 2})
    return bytes(answer["body"]).decode()


def files(canister: Handle) -> Steps[dict[str, FileState]]:
    """What has arrived of each of the files."""
    found = yield from call(canister, "files")
    return {name: FileState.from_candid(v) for name, v in found.items() if v is not None}


def length(canister: Handle, file: str) -> Steps[int]:
    """How many bytes of a file ("safetensors", "config", "tokenizer") have arrived."""
    return int((yield from call(canister, f"{_file(file)}_bytes_length")))


def append(canister: Handle, file: str, data: bytes) -> Steps[FileInfo]:
    """Adds bytes to a file; answers what the file is now."""
    arg = b"".join((BLOB_HEAD, candid.unsigned_leb128(len(data)), data))
    return FileInfo.from_candid(
        (yield from _call_encoded(canister, f"append_{_file(file)}_bytes", arg))
    )


def clear(canister: Handle, file: str) -> Steps[None]:
    """Drops what has been staged of a file."""
    yield from call(canister, f"clear_{_file(file)}_bytes")


def store(canister: Handle, file: str) -> Steps[FileInfo]:
    """Moves a staged file ("safetensors" or "tokenizer") to stable memory."""
    method = f"store_{_file(file)}_bytes_to_stable"
    return FileInfo.from_candid((yield from call(canister, method)))


def load(canister: Handle, file: str) -> Steps[FileInfo]:
    """Reads a stored file ("safetensors" or "tokenizer") back from stable memory."""
    return FileInfo.from_candid(
        (yield from call(canister, f"load_{_file(file)}_bytes_from_stable"))
    )


def begin(canister: Handle, file: str, length: int, sha256: bytes) -> Steps[Arrived]:
    """Begins the upload of a file, or goes on with the very same one.

    `file` is one of the three, or "packed": weights as `icgpt.engine.pack` makes them.
    """
    return Arrived.from_candid((yield from checked(canister, "begin", _kind(file), length, sha256)))


def write(canister: Handle, file: str, offset: int, data: bytes) -> Steps[FileInfo]:
    """Sends a chunk of a file that was begun; answers what the canister has hashed of it.

    Chunks may come in any order, and more than once.
    """
    return FileInfo.from_candid((yield from checked(canister, "write", _kind(file), offset, data)))


def missing(canister: Handle, file: str) -> Steps[Arrived | None]:
    """What has arrived of a file that was begun; None when none was."""
    found = yield from call(canister, "missing", _kind(file))
    return None if found is None else Arrived.from_candid(found)


def commit(canister: Handle, file: str, sha256: bytes) -> Steps[FileInfo]:
    """Ends the upload of a file of which nothing is missing."""
    return FileInfo.from_candid((yield from checked(canister, "commit", _kind(file), sha256)))


def discard(canister: Handle, file: str) -> Steps[None]:
    """Drops the upload of a file. What runs stays."""
    yield from checked(canister, "discard", _kind(file))


def setup_model(
    canister: Handle, seconds: float = 3600.0, on_wait: Callable[[], None] | None = None
) -> Steps[None]:
    """Makes the uploaded files the running model; large ones take a while."""
    ok((yield from call(canister, "setup_model", seconds=seconds, on_wait=on_wait)))


def set_name(canister: Handle, name: str | None) -> Steps[None]:
    """Calls the model that answers by a name of 1 to 96 characters; None takes its name away."""
    yield from checked(canister, "set_name", name)


def set_precision(canister: Handle, precision: str | None) -> Steps[None]:
    """Chooses "f32", "int8" or "int16" for the next set-up; None: what config.json says.

    A set-up that succeeds spends the choice.
    """
    yield from checked(canister, "set_precision", precision)


def setup_tokenizer(canister: Handle) -> Steps[None]:
    """Makes the uploaded tokenizer the running one."""
    fault = yield from call(canister, "setup_tokenizer")
    if fault is not None:
        raise CanisterError(str(fault))


# --- Who may use it


def access(canister: Handle) -> Steps[Access]:
    """Managers, users and whether anyone may use the model."""
    return Access(**(yield from call(canister, "access")))


def set_public(canister: Handle, public: bool) -> Steps[None]:
    """Lets anyone use the model, or only users and managers."""
    yield from call(canister, "set_public_mode", public)


def quotas(canister: Handle) -> Steps[Quotas]:
    """How much callers may ask for."""
    return Quotas(**(yield from call(canister, "quotas")))


def set_quotas(canister: Handle, quotas: Quotas) -> Steps[None]:
    """Changes how much callers may ask for."""
    yield from checked(canister, "set_quotas", vars(quotas))


def usage(canister: Handle) -> Steps[Usage]:
    """What this identity has used of its quota."""
    return Usage(**(yield from call(canister, "usage")))


def add_user(canister: Handle, principal: bytes) -> Steps[None]:
    """Lets a principal use the model."""
    yield from call(canister, "add_user", principal)


def remove_user(canister: Handle, principal: bytes) -> Steps[None]:
    """Takes a user off the list."""
    yield from call(canister, "remove_user", principal)


def add_manager(canister: Handle, principal: bytes) -> Steps[None]:
    """Lets a principal upload models and manage access."""
    yield from call(canister, "add_manager", principal)


def remove_manager(canister: Handle, principal: bytes) -> Steps[None]:
    """Takes a manager off the list."""
    yield from call(canister, "remove_manager", principal)


def is_manager(canister: Handle, principal: bytes) -> Steps[bool]:
    """Whether a principal may upload models, by the seed's own method."""
    return bool((yield from call(canister, "is_principal_authorized", principal)))


def add_authorized_principal(canister: Handle, principal: bytes) -> Steps[None]:
    """The seed's own name of `add_manager`."""
    yield from call(canister, "add_authorized_principal", principal)


# --- Calls


def call(
    canister: Handle,
    method: str,
    *arguments: Any,
    seconds: float | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Steps[Any]:
    """Calls any method of the interface; its result as Candid decodes it.

    Args:
        canister: the canister.
        method: its method.
        *arguments: one for each of the method's arguments.
        seconds: how long to wait for the answer.
        on_wait: called now and then while an update call is waited for.
    """
    arg = encoded(method, *arguments)
    return (yield from _call_encoded(canister, method, arg, seconds, on_wait))


def encoded(method: str, *arguments: Any) -> bytes:
    """The arguments of a method in Candid."""
    try:
        return candid.encode(METHODS[method].arguments, arguments)
    except (candid.CandidError, TypeError, OverflowError) as error:
        raise UsageError(f"{method}: {error}") from error


def _call_encoded(
    canister: Handle,
    method: str,
    arg: bytes,
    seconds: float | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Steps[Any]:
    kind = METHODS[method]
    if kind.query:
        reply = yield from protocol.query(canister.agent, canister.id, method, arg, seconds=seconds)
    else:
        reply = yield from protocol.update(
            canister.agent, canister.id, method, arg, seconds=seconds, on_wait=on_wait
        )
    return decoded(canister, method, reply)


def decoded(canister: Handle, method: str, reply: bytes) -> Any:
    """The result of a method from its Candid."""
    try:
        results = candid.decode(reply, METHODS[method].results)
    except candid.CandidError as error:
        raise IcgptError(
            f"the canister {to_text(canister.id)} and this package are of different versions: "
            f"its answer to '{method}' can't be read",
            "Bring the canister to this package's version: icgpt deploy",
        ) from error
    return results[0] if results else None


def checked(canister: Handle, method: str, *arguments: Any) -> Steps[Any]:
    """The `Ok` of a method's result; its `Err` is raised."""
    return ok((yield from call(canister, method, *arguments)))


def prompt_value(prompt: str | Sequence[int]) -> dict[str, Any]:
    """A prompt as the interface takes it."""
    return {"text": prompt} if isinstance(prompt, str) else {"token_ids": list(prompt)}


def option_values(options: dict[str, Any]) -> dict[str, Any]:
    """All fields of the options record; UsageError for a name that it doesn't have."""
    for name in options:
        if name not in OPTION_NAMES:
            raise UsageError(f"there is no option '{name}'", f"Options: {', '.join(OPTION_NAMES)}")
    values = {name: options.get(name) for name in OPTION_NAMES}
    if isinstance(values["stop"], str):
        values["stop"] = [values["stop"]]
    if isinstance(values["early_stopping"], bool):
        values["early_stopping"] = "true" if values["early_stopping"] else "false"
    bias = values["logit_bias"]
    if isinstance(bias, Mapping):
        values["logit_bias"] = [{"token_id": one, "bias": more} for one, more in bias.items()]
    return values


def several(options: dict[str, Any]) -> bool:
    """Whether there is more than one answer, to be given or to be weighed by beams."""
    return any((options.get(name) or 1) > 1 for name in ("num_beams", "num_return_sequences"))


def _file(name: str) -> str:
    if name not in ("safetensors", "config", "tokenizer"):
        raise UsageError(f"there is no file '{name}'", "Files: safetensors, config, tokenizer")
    return name


def _kind(name: str) -> dict[str, None]:
    return {name if name == "packed" else _file(name): None}


def ok(result: Any) -> Any:
    """The `Ok` of a result; its `Err` is raised."""
    if "Err" in result:
        raise CanisterError(str(result["Err"]))
    return result["Ok"]

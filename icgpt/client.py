"""ModelCanister: a GPT on the Internet Computer, as a Python object; AsyncModelCanister: awaited.

    with ModelCanister.connect("model") as model:
        print(model.generate("what is the capital of France?", 10, 0.2))

    async with await AsyncModelCanister.connect("model") as model:
        print(await model.generate("what is the capital of France?", 10, 0.2))

One method for each of the canister's, in Python's types; answers are the dataclasses of
`icgpt.results`. What the methods do is written once, in `icgpt.methods`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from icgpt import methods, proving, replaying
from icgpt.agent import Agent, AsyncAgent
from icgpt.errors import CallTimeoutError, CanisterError, UsageError
from icgpt.identity import Identity
from icgpt.methods import Handle
from icgpt.principal import from_text
from icgpt.results import Completion
from icgpt.steps import Awaiting, Blocking, Pause, Steps
from icgpt.transport import AsyncClosing, Closing

if TYPE_CHECKING:
    from icgpt.project import Project

T = TypeVar("T")


class ModelCanister(Handle, Closing):
    """Calls on one model canister. `close()` it, or use it as a context manager.

    Args:
        agent: whose network, identity and connections are used.
        canister_id: the canister, as raw bytes or text.
    """

    def __init__(self, agent: Agent, canister_id: bytes | str) -> None:
        self.agent: Agent = agent
        self.id = _id(canister_id)

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
        caller, canister_id = found(canister, network, identity)
        return cls(Agent(*caller), canister_id)

    def run(self, steps: Steps[T]) -> T:
        """Takes steps of `icgpt.methods`."""
        return self.agent.run(steps)

    # --- Writing text

    generate = Blocking(methods.generate)
    infer = Blocking(methods.infer)
    complete = Blocking(methods.complete)
    complete_query = Blocking(methods.complete_query)
    submit = Blocking(methods.submit)
    poll = Blocking(methods.poll)
    jobs = Blocking(methods.jobs)
    cancel = Blocking(methods.cancel)
    proof = Blocking(methods.proof)
    receipt = Blocking(methods.receipt)
    ask = Blocking(proving.ask)
    keep = Blocking(proving.keep)
    replay = Blocking(replaying.replay)

    def stream(self, prompt: str | Sequence[int], **options: Any) -> Stream:
        """The answer piece by piece as it is written; takes what `complete` takes."""
        return Stream(self, self.submit(prompt, **options))

    # --- Tokens and probabilities

    tokenize = Blocking(methods.tokenize)
    decode = Blocking(methods.decode)
    decode_each = Blocking(methods.decode_each)
    logits = Blocking(methods.logits)
    score = Blocking(methods.score)

    # --- The model and its files

    info = Blocking(methods.info)
    metrics = Blocking(methods.metrics)
    files = Blocking(methods.files)
    length = Blocking(methods.length)
    append = Blocking(methods.append)
    clear = Blocking(methods.clear)
    store = Blocking(methods.store)
    load = Blocking(methods.load)
    begin = Blocking(methods.begin)
    write = Blocking(methods.write)
    missing = Blocking(methods.missing)
    commit = Blocking(methods.commit)
    discard = Blocking(methods.discard)
    setup_model = Blocking(methods.setup_model)
    set_name = Blocking(methods.set_name)
    set_precision = Blocking(methods.set_precision)
    setup_tokenizer = Blocking(methods.setup_tokenizer)

    # --- Who may use it

    access = Blocking(methods.access)
    set_public = Blocking(methods.set_public)
    quotas = Blocking(methods.quotas)
    set_quotas = Blocking(methods.set_quotas)
    usage = Blocking(methods.usage)
    add_user = Blocking(methods.add_user)
    remove_user = Blocking(methods.remove_user)
    add_manager = Blocking(methods.add_manager)
    remove_manager = Blocking(methods.remove_manager)
    is_manager = Blocking(methods.is_manager)
    add_authorized_principal = Blocking(methods.add_authorized_principal)

    # --- Calls

    call = Blocking(methods.call)

    def close(self) -> None:
        """Ends the connections."""
        self.agent.close()


class AsyncModelCanister(Handle, AsyncClosing):
    """The same for asyncio: every method is awaited, `stream` gives an async iterator.

    Args:
        agent: whose network, identity and connections are used.
        canister_id: the canister, as raw bytes or text.
    """

    def __init__(self, agent: AsyncAgent, canister_id: bytes | str) -> None:
        self.agent: AsyncAgent = agent
        self.id = _id(canister_id)

    @classmethod
    async def connect(
        cls,
        canister: str = "model",
        network: str | None = None,
        identity: str | Identity | None = None,
    ) -> AsyncModelCanister:
        """Finds a canister by name or id.

        Args:
            canister: a name that the project's files have an id for, or a canister id.
            network: "local", "ic" or an address; $ICGPT_NETWORK or else "local" when left out.
            identity: a PEM file, "anonymous" or an Identity; the default key when left out.
        """
        # Reads files, and asks a network whose key is pinned for its key.
        import asyncio  # takes long to load, and is loaded where somebody awaits

        caller, canister_id = await asyncio.to_thread(found, canister, network, identity)
        return cls(AsyncAgent(*caller), canister_id)

    async def run(self, steps: Steps[T]) -> T:
        """Takes steps of `icgpt.methods`."""
        return await self.agent.run(steps)

    # --- Writing text

    generate = Awaiting(methods.generate)
    infer = Awaiting(methods.infer)
    complete = Awaiting(methods.complete)
    complete_query = Awaiting(methods.complete_query)
    submit = Awaiting(methods.submit)
    poll = Awaiting(methods.poll)
    jobs = Awaiting(methods.jobs)
    cancel = Awaiting(methods.cancel)
    proof = Awaiting(methods.proof)
    receipt = Awaiting(methods.receipt)
    ask = Awaiting(proving.ask)
    keep = Awaiting(proving.keep)
    replay = Awaiting(replaying.replay)

    async def stream(self, prompt: str | Sequence[int], **options: Any) -> AsyncStream:
        """The answer piece by piece as it is written; takes what `complete` takes."""
        return AsyncStream(self, await self.submit(prompt, **options))

    # --- Tokens and probabilities

    tokenize = Awaiting(methods.tokenize)
    decode = Awaiting(methods.decode)
    decode_each = Awaiting(methods.decode_each)
    logits = Awaiting(methods.logits)
    score = Awaiting(methods.score)

    # --- The model and its files

    info = Awaiting(methods.info)
    metrics = Awaiting(methods.metrics)
    files = Awaiting(methods.files)
    length = Awaiting(methods.length)
    append = Awaiting(methods.append)
    clear = Awaiting(methods.clear)
    store = Awaiting(methods.store)
    load = Awaiting(methods.load)
    begin = Awaiting(methods.begin)
    write = Awaiting(methods.write)
    missing = Awaiting(methods.missing)
    commit = Awaiting(methods.commit)
    discard = Awaiting(methods.discard)
    setup_model = Awaiting(methods.setup_model)
    set_name = Awaiting(methods.set_name)
    set_precision = Awaiting(methods.set_precision)
    setup_tokenizer = Awaiting(methods.setup_tokenizer)

    # --- Who may use it

    access = Awaiting(methods.access)
    set_public = Awaiting(methods.set_public)
    quotas = Awaiting(methods.quotas)
    set_quotas = Awaiting(methods.set_quotas)
    usage = Awaiting(methods.usage)
    add_user = Awaiting(methods.add_user)
    remove_user = Awaiting(methods.remove_user)
    add_manager = Awaiting(methods.add_manager)
    remove_manager = Awaiting(methods.remove_manager)
    is_manager = Awaiting(methods.is_manager)
    add_authorized_principal = Awaiting(methods.add_authorized_principal)

    # --- Calls

    call = Awaiting(methods.call)

    async def close(self) -> None:
        """Ends the connections."""
        await self.agent.close()


class Job:
    """What has been read of a job so far."""

    def __init__(self, model: Handle, job: bytes, idle_seconds: float = 600.0) -> None:
        self.job = job
        self.idle_seconds = idle_seconds
        self.completion = Completion([], None, None, None, 0, 0, 0)
        self.handle = model
        self.worked = 0
        """Instructions that it had taken when it was last looked at."""

    def next_piece(self) -> Steps[Completion | None]:
        """What the job has written since; None when it had ended before."""
        if self.completion.finish is not None:
            return None
        pause = 0.02
        began = time.monotonic()
        while True:
            before = self.worked
            piece = yield from self.look()
            if piece is not None:
                return piece
            if self.worked != before:
                # A search works long before it has anything to tell.
                began = time.monotonic()
            if time.monotonic() - began > self.idle_seconds:
                raise CallTimeoutError(
                    f"the job has not moved for {self.idle_seconds:.0f} seconds",
                    "Look with `icgpt status`; the canister may be out of cycles.",
                )
            yield Pause(pause)
            pause = min(1.5 * pause, 0.5)

    def look(self) -> Steps[Completion | None]:
        """The same without waiting: None where there is no news, either."""
        piece = yield from methods.poll(self.handle, self.job, len(self.completion.token_ids))
        self.worked = piece.instructions
        if not piece.token_ids and piece.finish is None:
            return None
        self.add(piece)
        return piece

    def add(self, piece: Completion) -> None:
        """Takes a piece in."""
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
            sequences=piece.sequences,
        )

    def check(self) -> None:
        """Raises when the job failed."""
        if self.completion.finish == "failed":
            raise CanisterError(self.completion.failure or "the job failed")


class Stream(Job):
    """A running job; iterating gives its pieces, each a Completion with what is new in it.

    A character that takes several tokens comes with the last of them. `completion` is the whole
    so far, and final once the iteration has ended.
    """

    def __init__(self, model: ModelCanister, job: bytes, idle_seconds: float = 600.0) -> None:
        super().__init__(model, job, idle_seconds)
        self.model = model

    def __iter__(self) -> Iterator[Completion]:
        while (piece := self.model.run(self.next_piece())) is not None:
            yield piece
        self.check()

    def cancel(self) -> None:
        """Ends the job."""
        self.model.cancel(self.job)


class AsyncStream(Job):
    """A running job; `async for` gives its pieces as `Stream` does."""

    def __init__(self, model: AsyncModelCanister, job: bytes, idle_seconds: float = 600.0) -> None:
        super().__init__(model, job, idle_seconds)
        self.model = model

    async def __aiter__(self) -> AsyncIterator[Completion]:
        while (piece := await self.model.run(self.next_piece())) is not None:
            yield piece
        self.check()

    async def cancel(self) -> None:
        """Ends the job."""
        await self.model.cancel(self.job)


def _id(canister_id: bytes | str) -> bytes:
    if isinstance(canister_id, bytes):
        return canister_id
    try:
        return from_text(canister_id)
    except ValueError as error:
        raise UsageError(
            str(error), "Give an id, or connect by name: ModelCanister.connect(NAME)"
        ) from error


def found(
    canister: str, network: str | None, identity: str | Identity | None
) -> tuple[tuple[str, bytes, Identity], bytes]:
    """What an agent is made of, and the id of a canister."""
    caller, name, project = _found(network, identity)
    return caller, project.resolve(canister, name)


def found_fleet(
    canister: str, network: str | None, identity: str | Identity | None
) -> tuple[tuple[str, bytes, Identity], dict[str, bytes]]:
    """The same, and the ids of all canisters of a fleet."""
    caller, name, project = _found(network, identity)
    return caller, project.fleet(canister, name) or {canister: project.resolve(canister, name)}


def _found(
    network: str | None, identity: str | Identity | None
) -> tuple[tuple[str, bytes, Identity], str, Project]:
    from icgpt import connect, project
    from icgpt.identity import load

    target = connect.resolve(network)
    who = identity if isinstance(identity, Identity) else load(identity)
    return (target.url, target.root_key, who), target.name, project.find()

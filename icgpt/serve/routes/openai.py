"""The interface of OpenAI's clients: completions, chat completions, models."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any, Final

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from icgpt.results import Logprob, TokenLogprobs
from icgpt.serve import problems
from icgpt.serve.desk import Desk, Done, TheDesk
from icgpt.serve.document import stream_of
from icgpt.serve.errors import PromptTooLongError, UnknownModelError
from icgpt.serve.keys import KNOWN_CALLER
from icgpt.serve.openai import probabilities
from icgpt.serve.openai.answered import (
    ChatChunk,
    ChatCompletion,
    Completion,
    CompletionChunk,
    Fault,
    Model,
    ModelList,
    Refusal,
)
from icgpt.serve.openai.asked import Asked, ChatAsked, CompletionAsked
from icgpt.serve.openai.choices import Stream, together, with_seeds
from icgpt.serve.openai.dialogue import ids_of
from icgpt.serve.problems import Problem, Responses, refusals
from icgpt.serve.sse import DONE, EventStream
from icgpt.serve.usage import Usage

router = APIRouter(
    prefix="/v1", tags=["openai"], dependencies=[KNOWN_CALLER], responses=refusals(Refusal)
)

_FINISHES: Final = {"stop": "stop", "length": "length", "context": "length"}
_TOO_LONG: Final[Responses] = {
    400: {"model": Refusal, "description": "The prompt does not fit into the context."}
}
_TYPES: Final = {401: "authentication_error", 429: "rate_limit_error"}


def _shape(problem: Problem) -> Any:
    usual = "invalid_request_error" if problem.status < 500 else "server_error"
    fault = Fault(
        message=problem.message,
        type=_TYPES.get(problem.status, usual),
        param=problem.field,
        code=problem.kind,
    )
    return Refusal(error=fault).model_dump()


problems.shaped(r"/v1/(chat/|completions|models(/.*)?(?<!:predict)$)", _shape)


class _Frame:
    """What all documents of one answer have in common."""

    def __init__(self, desk: Desk, kind: str, prefix: str) -> None:
        self.kind = kind
        self._common = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": desk.backend.facts.name,
            "system_fingerprint": f"fp_{desk.backend.facts.fingerprint}",
        }

    def whole(self, choices: list[Any], usage: Usage) -> Response:
        """The answer as one document."""
        document = {**self._common, "object": self.kind, "choices": choices}
        return JSONResponse({**document, "usage": usage.model_dump()})

    def chunk(self, choices: list[Any], usage: Any = ...) -> dict[str, Any]:
        """A document of a stream; with `usage` where the caller asks for it."""
        kind = self.kind if self.kind == "text_completion" else f"{self.kind}.chunk"
        document = {**self._common, "object": kind, "choices": choices}
        return document if usage is ... else {**document, "usage": usage}


def _check_model(body: Asked, desk: Desk) -> None:
    known = desk.backend.facts.name
    if body.model not in (None, "", known):
        raise _unknown(known)


def _check_length(desk: Desk, prompt: list[int], options: dict[str, Any]) -> None:
    """Refuses a prompt that is too long by the status that OpenAI's clients look for."""
    try:
        desk.fitted(len(prompt), options)
    except PromptTooLongError as error:
        raise _TooLongError(error.message, error.hint) from error


class _TooLongError(PromptTooLongError):
    status = 400


def _unknown(known: str) -> UnknownModelError:
    return UnknownModelError(f"there is no such model; this service has '{known}'")


@router.get("/models")
async def models(desk: TheDesk) -> ModelList:
    """Lists the one model that the service has."""
    return ModelList(object="list", data=[_model(desk)])


@router.get("/models/{model:path}")
async def model(model: str, desk: TheDesk) -> Model:
    """Says what the service knows of its model."""
    if model != desk.backend.facts.name:
        raise _unknown(desk.backend.facts.name)
    return _model(desk)


def _model(desk: Desk) -> Model:
    facts = desk.backend.facts
    return Model(
        id=facts.name,
        object="model",
        created=0,
        owned_by="icgpt",
        max_model_len=desk.max_context,
        parameters=facts.parameters,
        precision=facts.precision,
    )


@router.post(
    "/completions",
    response_model=Completion,
    responses={200: stream_of(CompletionChunk, Refusal), **_TOO_LONG},
)
async def completions(body: CompletionAsked, desk: TheDesk) -> Response:
    """Goes on from one prompt or several."""
    _check_model(body, desk)
    options = body.options()
    prompts = [await desk.token_ids(prompt) for prompt in body.prompts()]
    for prompt in prompts:
        _check_length(desk, prompt, options)
    frame = _Frame(desk, "text_completion", "cmpl")
    if body.stream and body.max_tokens != 0:
        return await _completion_stream(body, desk, frame, prompts, options)
    asked = [(prompt, one) for prompt in prompts for one in with_seeds(options, body.candidates)]
    if body.max_tokens == 0:
        done = [Done(finish="length", prompt_tokens=len(prompt)) for prompt, _ in asked]
    else:
        done = await together([desk.complete(prompt, one) for prompt, one in asked])
    usage = _usage(done, body.candidates)
    choices: list[Any] = []
    for place, prompt in enumerate(prompts):
        written = done[place * body.candidates : (place + 1) * body.candidates]
        if body.candidates > body.choices:
            written = sorted(written, key=_likelihood, reverse=True)[: body.choices]
        for one in written:
            choices.append(await _completion_choice(body, desk, len(choices), prompt, one))
    return frame.whole(choices, usage)


async def _completion_choice(
    body: CompletionAsked, desk: Desk, index: int, prompt: list[int], done: Done
) -> dict[str, Any]:
    text, places = "", done.logprobs
    if body.echo:
        text = await desk.text(prompt)
        if body.logprobs is not None:
            places = [*await _prompt_places(desk, prompt), *places]
    told = None
    if body.logprobs is not None:
        texts = await probabilities.texts_of(desk.backend, places)
        told = probabilities.of_completion(places, texts, 0)
        if body.echo:
            told["token_logprobs"][0] = told["top_logprobs"][0] = None  # nothing stands before it
    return _completion(index, text + done.text, told, done.finish)


def _completion(index: int, text: str, logprobs: Any, finish: str | None) -> dict[str, Any]:
    reason = None if finish is None else _FINISHES.get(finish, finish)
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


async def _prompt_places(desk: Desk, prompt: list[int]) -> list[TokenLogprobs]:
    scores = await desk.score(prompt[:1], prompt[1:]) if len(prompt) > 1 else []
    pairs = zip(prompt, [0.0, *scores], strict=True)
    return [TokenLogprobs(Logprob(token, score), []) for token, score in pairs]


async def _completion_stream(
    body: CompletionAsked,
    desk: Desk,
    frame: _Frame,
    prompts: list[list[int]],
    options: dict[str, Any],
) -> Response:
    asked = [(prompt, one) for prompt in prompts for one in with_seeds(options, body.choices)]
    stream = Stream(desk, asked)
    shown = [0] * len(asked)

    async def events() -> AsyncGenerator[Any, None]:
        usual = None if _with_usage(body) else ...
        if body.echo:
            for index, (prompt, _) in enumerate(asked):
                choice = await _completion_choice(body, desk, index, prompt, Done())
                shown[index] = len(choice["text"])
                yield frame.chunk([choice], usual)
        async for index, piece in stream:
            told = None
            if body.logprobs is not None:
                texts = await probabilities.texts_of(desk.backend, piece.logprobs)
                told = probabilities.of_completion(piece.logprobs, texts, shown[index])
            shown[index] += len(piece.text)
            if piece.text or piece.logprobs or piece.finish:
                choice = _completion(index, piece.text, told, piece.finish)
                yield frame.chunk([choice], usual)
        if usual is None:
            yield frame.chunk([], _usage(stream.done, body.choices).model_dump())
        yield DONE

    return await _streamed(stream, events())


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    responses={200: stream_of(ChatChunk, Refusal), **_TOO_LONG},
)
async def chat(body: ChatAsked, desk: TheDesk) -> Response:
    """Says what comes next in a conversation."""
    _check_model(body, desk)
    template = desk.backend.facts.template
    prompt, ends = await ids_of(body.messages, template, desk.backend.tokenize)
    options = body.options()
    if ends:
        options["stop"] = [*options.get("stop", ())[: 16 - len(ends)], *ends]
    _check_length(desk, prompt, options)
    frame = _Frame(desk, "chat.completion", "chatcmpl")
    asked = [(prompt, one) for one in with_seeds(options, body.choices)]
    if body.stream:
        return await _chat_stream(body, desk, frame, Stream(desk, asked))
    done = await together([desk.complete(*one) for one in asked])
    choices = []
    for index, one in enumerate(done):
        message = {"role": "assistant", "content": one.text, "refusal": None}
        told = await _chat_logprobs(body, desk, one.logprobs)
        choices.append(_message(index, "message", message, told, one.finish))
    return frame.whole(choices, _usage(done, body.choices))


def _message(
    index: int, name: str, message: Any, logprobs: Any, finish: str | None
) -> dict[str, Any]:
    reason = None if finish is None else _FINISHES.get(finish, finish)
    return {"index": index, name: message, "logprobs": logprobs, "finish_reason": reason}


async def _chat_logprobs(body: ChatAsked, desk: Desk, places: list[TokenLogprobs]) -> Any:
    if not body.logprobs:
        return None
    return probabilities.of_chat(places, await probabilities.texts_of(desk.backend, places))


async def _chat_stream(body: ChatAsked, desk: Desk, frame: _Frame, stream: Stream) -> Response:
    async def events() -> AsyncGenerator[Any, None]:
        usual = None if _with_usage(body) else ...
        for index in range(body.choices):
            begun = {"role": "assistant", "content": "", "refusal": None}
            yield frame.chunk([_message(index, "delta", begun, None, None)], usual)
        async for index, piece in stream:
            told = await _chat_logprobs(body, desk, piece.logprobs)
            if piece.text or piece.logprobs:
                delta = {"content": piece.text}
                yield frame.chunk([_message(index, "delta", delta, told, None)], usual)
            if piece.finish:
                yield frame.chunk([_message(index, "delta", {}, None, piece.finish)], usual)
        if usual is None:
            yield frame.chunk([], _usage(stream.done, body.choices).model_dump())
        yield DONE

    return await _streamed(stream, events())


async def _streamed(stream: Stream, events: AsyncGenerator[Any, None]) -> Response:
    await stream.start()
    return EventStream(events, stream.close, lambda error: _shape(problems.problem_of(error)))


def _with_usage(body: Asked) -> bool:
    return bool(body.stream_options and body.stream_options.include_usage)


def _usage(done: list[Done], of_each: int) -> Usage:
    """Prompts count once, however many answers there are to each."""
    prompts = sum(one.prompt_tokens for one in done[::of_each])
    return Usage.of(prompts, sum(len(one.token_ids) for one in done))


def _likelihood(done: Done) -> float:
    """The mean log-probability of an answer's tokens."""
    values = [place.chosen.logprob for place in done.logprobs]
    return sum(values) / len(values) if values else float("-inf")

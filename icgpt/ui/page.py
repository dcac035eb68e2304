"""The page: seed text, max tokens, temperature, top N, and the text as it is written.

    app = build_page([LocalWriter(open_checkpoint("shakespeare-char"))])
    serve(app)

With several writers the page offers a choice. Nothing on it is loaded from another server.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, Final

from icgpt.errors import IcgptError, UsageError
from icgpt.ui.errors import GradioMissingError
from icgpt.ui.writers import Progress, Writer

try:
    import gradio as gr
except ModuleNotFoundError as error:
    if error.name != "gradio":
        raise
    raise GradioMissingError from error

MAX_TOKENS: Final = 2000
MAX_CHARACTERS: Final = 20_000
AT_ONCE: Final = 8
"""Texts that are written at the same time; more wait in line."""
MOST_WAITING: Final = 64
_FRAME_SECONDS: Final = 0.05  # the eye sees no more steps than this, and each is a message
_ENDS: Final = {
    "stop": "The model ended its text.",
    "context": "The model's context is full.",
    "cancelled": "The text was ended in the canister.",
}


def build_page(writers: Sequence[Writer], title: str = "icgpt") -> gr.Blocks:
    """A page on which the writers write.

    Args:
        writers: one or more; their names must differ.
        title: what the page is called.
    """
    by_name = {writer.name: writer for writer in writers}
    first = next(iter(by_name))

    with gr.Blocks(title=title, analytics_enabled=False, fill_width=False) as page:
        heading = gr.HTML(_heading(title, by_name[first]), elem_id="heading")
        with gr.Row(elem_id="desk"):
            with gr.Column(scale=5, min_width=300):
                model = gr.Dropdown(
                    list(by_name), value=first, label="Model", visible=len(by_name) > 1
                )
                seed_text = gr.Textbox(
                    label="Seed text",
                    placeholder="What the text begins with. Left empty, it is a single space.",
                    lines=4,
                    max_lines=10,
                    max_length=MAX_CHARACTERS,
                    autofocus=True,
                    elem_id="seed-text",
                )
                max_tokens = gr.Slider(
                    1,
                    MAX_TOKENS,
                    value=100,
                    step=1,
                    label="Max tokens",
                    buttons=[],
                    elem_id="max-tokens",
                )
                temperature = gr.Slider(
                    0,
                    1,
                    value=0.7,
                    step=0.05,
                    label="Temperature",
                    info="0 always takes the likeliest token.",
                    buttons=[],
                    elem_id="temperature",
                )
                top_n = gr.Number(
                    value=None,
                    label="Top N",
                    info="Choose among the N likeliest tokens only; 0 means all.",
                    precision=0,
                    elem_id="top-n",
                )
                with gr.Row(elem_id="buttons"):
                    go = gr.Button("Generate", variant="primary", elem_id="generate", scale=2)
                    halt = gr.Button("Stop", interactive=False, elem_id="stop", scale=1)
            with gr.Column(scale=7, min_width=300):
                text = gr.Textbox(
                    label="Text",
                    lines=8,
                    max_lines=30,
                    interactive=False,
                    buttons=["copy"],
                    placeholder="The text appears here while it is written.",
                    elem_id="text",
                )
                status = gr.HTML(elem_id="status")

        def shown(done: Progress, seed: str, words: str, busy: bool) -> tuple[Any, ...]:
            return (
                seed + done.text,
                words,
                gr.Button(interactive=not busy),
                gr.Button(interactive=busy),
            )

        # Who asked for an end, by the sessions of open pages. A run ends itself, so that what it
        # shows last is what is true; Gradio's own way of cancelling lets old news overtake new.
        ends: dict[str, threading.Event] = {}

        def write(request: gr.Request, name: str, *given: Any) -> Iterator[tuple[Any, ...]]:
            seed, words = given[0] or " ", _said("Writing…")
            done = Progress("", 0, None)
            ended = ends[request.session_hash or ""] = threading.Event()
            yield shown(done, seed, words, busy=True)
            began = last = time.monotonic()
            try:
                with closing(_pieces(by_name.get(name), seed, *given[1:])) as pieces:
                    for done in pieces:
                        now = time.monotonic()
                        words = _said(*_counted(done, now - began))
                        if done.finish is None and ended.is_set():
                            words = _said("Stopped.", _tokens(done))
                            break
                        if done.finish is None and now - last >= _FRAME_SECONDS:
                            last = now
                            yield shown(done, seed, words, busy=True)
            except IcgptError as error:
                words = _failed(error)
                seed = seed if done.tokens else ""
            finally:
                ends.pop(request.session_hash or "", None)
            yield shown(done, seed, words, busy=False)

        def end(request: gr.Request) -> None:
            if (ended := ends.get(request.session_hash or "")) is not None:
                ended.set()

        gr.on(
            [go.click, seed_text.submit],
            write,
            [model, seed_text, max_tokens, temperature, top_n],
            [text, status, go, halt],
            concurrency_limit=AT_ONCE,
            show_progress="hidden",
            trigger_mode="once",
            api_name="generate",
        )
        halt.click(end, queue=False, show_progress="hidden", api_visibility="private")
        model.change(
            lambda name: _heading(title, by_name[name]),
            model,
            heading,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
    page.queue(max_size=MOST_WAITING)
    return page


def _pieces(
    writer: Writer | None, seed: str, max_tokens: Any, temperature: Any, top_n: Any
) -> Generator[Progress, None, None]:
    """Checks what was asked and lets the writer go on from it."""
    if writer is None:
        raise UsageError("there is no such model on this page")
    if len(seed) > MAX_CHARACTERS:
        raise UsageError(f"the seed text has more than {MAX_CHARACTERS:,} characters")
    tokens = _number("Max tokens", max_tokens, 1, MAX_TOKENS)
    options: dict[str, Any] = {
        "max_new_tokens": int(tokens),
        "temperature": _number("Temperature", temperature, 0, 1),
    }
    if top_n is not None and _number("Top N", top_n, -(2**31), 2**31) > 0:
        options["top_k"] = int(top_n)
    yield from writer.write(seed, **options)


def _number(label: str, value: Any, least: float, most: float) -> float:
    if not isinstance(value, int | float) or not least <= value <= most:
        raise UsageError(f"{label} must be a number from {least:,} to {most:,}")
    return value


def _counted(done: Progress, seconds: float) -> tuple[str, ...]:
    """How much was written, how fast, and why no more."""
    count = _tokens(done)
    if done.finish is None:
        return "Writing…", count
    speed = f"{done.tokens / seconds:,.0f} tokens/s" if seconds else ""
    why = _ENDS.get(done.finish)
    return tuple(part for part in (count, f"{seconds:.1f} s", speed, why) if part)


def _tokens(done: Progress) -> str:
    return f"{done.tokens:,} token{'' if done.tokens == 1 else 's'}"


def _heading(title: str, writer: Writer) -> str:
    name, about = html.escape(writer.name), html.escape(writer.about)
    model = "" if name == title else f'<strong>{name}</strong><span class="dot">·</span>'
    return f'<header id="top"><h1>{html.escape(title)}</h1><p>{model}{about}</p></header>'


def _said(*parts: str) -> str:
    words = '<span class="dot">·</span>'.join(map(html.escape, parts))
    return f'<p class="said" role="status">{words}</p>'


def _failed(error: IcgptError) -> str:
    message = error.message.strip().rstrip(".")
    words = f"{message[:1].upper()}{message[1:]}."
    hint = f" {html.escape(error.hint)}" if error.hint else ""
    return f'<p class="failed" role="alert"><strong>{html.escape(words)}</strong>{hint}</p>'

"""`icgpt ui`: a page in the browser on which models write, in this process or in a canister."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from icgpt.cli.common import answer, identity_option, json_option, network_option, opened, say
from icgpt.cli.help import Command
from icgpt.cli.sources import precision_option, source_options

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint
    from icgpt.ui.writers import Writer


@click.command(
    cls=Command,
    examples=[
        "icgpt ui",
        "icgpt ui ./story shakespeare-char --precision int8",
        "icgpt ui --canister model --port 8000",
    ],
)
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option(
    "-c",
    "--canister",
    "canisters",
    multiple=True,
    metavar="NAME|ID",
    help="Let the model in this canister write; can be given several times.",
)
@precision_option("How weights are held in this process; the model's own way when left out.")
@source_options
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen. Others than this machine can reach the page at 0.0.0.0.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="7860, or the next free one if that is taken; 0 is any.",
)
@click.option("--open/--no-open", "browser", default=False, help="Open it in the browser.")
@network_option
@identity_option
@json_option
def ui(
    sources: tuple[str, ...],
    canisters: tuple[str, ...],
    precision: str | None,
    open_source: Callable[[str], Checkpoint],
    host: str,
    port: int | None,
    browser: bool,
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Open a page to let models write in (needs Gradio).

    SOURCE is a model as `icgpt upload` takes it, which then writes in this process: a folder, a
    file, an id of the Hugging Face hub, or a built-in name. Without one, and without a canister,
    the built-in model does. With several the page offers a choice. It runs until Ctrl-C.
    """
    from icgpt.demo import MODEL
    from icgpt.transport import LOOPBACK
    from icgpt.ui.page import build_page
    from icgpt.ui.serving import serve, wait

    if not sources and not canisters:
        sources = (MODEL,)
    with ExitStack() as held:
        writers = _local(sources, open_source, precision)
        if canisters:
            writers += _remote(held, canisters, network, identity)
        for writer in writers:
            held.callback(writer.close)
        page = build_page(_named_apart(writers))
        url = serve(page, host, port)

        def ready() -> None:
            answer(as_json, {"url": url, "models": [one.name for one in writers]}, url)
            if host not in LOOPBACK:
                say("Whoever reaches this address can use the page.")
            say("The page is there until Ctrl-C.")
            if browser:
                click.launch(url)

        wait(page, ready)


def _local(
    sources: tuple[str, ...], open_source: Callable[[str], Checkpoint], precision: str | None
) -> list[Writer]:
    from icgpt.ui.local import LocalWriter

    writers: list[Writer] = []
    for source in sources:
        checkpoint = open_source(source)
        say(f"Loading {checkpoint.name}")
        writers.append(LocalWriter(checkpoint, precision))
    return writers


def _remote(
    held: ExitStack, canisters: tuple[str, ...], network: str | None, identity: str | None
) -> list[Writer]:
    from icgpt.client import ModelCanister
    from icgpt.ui.canister import CanisterWriter

    agent, target, project = held.enter_context(opened(network, identity))
    return [
        CanisterWriter(ModelCanister(agent, project.resolve(name, target.name)), name, target.name)
        for name in canisters
    ]


def _named_apart(writers: list[Writer]) -> list[Writer]:
    """Two models of one name get numbers, so that the page can tell them apart."""
    seen: dict[str, int] = {}
    for writer in writers:
        count = seen[writer.name] = seen.get(writer.name, 0) + 1
        if count > 1:
            writer.name = f"{writer.name} ({count})"
    return writers

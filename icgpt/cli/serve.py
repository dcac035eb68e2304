"""`icgpt serve`: a model over HTTP, for clients of several services."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from icgpt.cli.common import (
    answer,
    count_option,
    identity_option,
    json_option,
    network_option,
    opened,
    say,
)
from icgpt.cli.completing import CANISTERS, MODELS
from icgpt.cli.help import Command
from icgpt.cli.sources import precision_option, source_options_from
from icgpt.cli.tasks import opened_as, task_options, tasks_of
from icgpt.transport import LOOPBACK

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint
    from icgpt.serve.backend import Backend
    from icgpt.serve.settings import Settings

_USUAL_FILE = "model.pth"
_NEEDED = ("fastapi", "uvicorn", "prometheus_client", "fastapi_offline")


@click.command(
    cls=Command,
    examples=[
        "icgpt serve",
        "icgpt serve --local ./story --port 8080 --port 5001",
        "icgpt serve --canister model --port 8000",
    ],
)
@click.option(
    "--local",
    "source",
    envvar=["ICGPT_SERVE_LOCAL", "CKPT_PATH"],
    metavar="SOURCE",
    help="Let this model write, on this machine.",
    shell_complete=MODELS,
)
@click.option(
    "-c",
    "--canister",
    envvar=["ICGPT_SERVE_CANISTER", "ICGPT_CANISTER"],
    metavar="NAME|ID",
    help="Let the model in this canister write, or those of a fleet.",
    shell_complete=CANISTERS,
)
@precision_option("How weights are held on this machine; int8 when left out.")
@count_option(
    "--instances",
    envvar=["ICGPT_SERVE_INSTANCES", "TORCH_THREADS"],
    default=1,
    text="Engines on this machine, each with a processor of its own.",
)
@source_options_from("ICGPT_SERVE_MODEL_NAME", "MODEL_NAME")
@click.option("--name", metavar="NAME", help="What the model is called; its own name otherwise.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen. Others than this machine can reach the service at 0.0.0.0.",
)
@click.option(
    "--port",
    "ports",
    type=click.IntRange(0, 65535),
    multiple=True,
    metavar="PORT",
    help="8080 when left out; 0 is any. Can be given several times.",
)
@click.option(
    "--api-key",
    "api_keys",
    envvar=["ICGPT_SERVE_API_KEY", "API_KEY"],
    multiple=True,
    metavar="KEY",
    help="Let in only who knows this key. Other users see flags: rather set API_KEY.",
)
@task_options
@count_option(
    "--max-context",
    envvar=["ICGPT_SERVE_MAX_CONTEXT", "MAX_CTX"],
    default=512,
    text="Tokens of prompt and answer together.",
)
@count_option("--max-tokens", default=1024, text="New tokens that one answer may have.")
@count_option("--max-body", default=1 << 20, text="Bytes that one request may have.")
@count_option("--at-once", default=8, text="Answers that one engine writes at the same time.")
@count_option("--queue", default=64, least=0, text="Answers that may wait; more are refused.")
@click.option(
    "--rate-limit",
    type=click.IntRange(1),
    metavar="N",
    help="Requests a minute for each key, or each address without keys.",
)
@count_option("--drain", default=30, least=0, text="Seconds that answers may go on at the end.")
@click.option("--log-prompts", is_flag=True, help="Write what is asked and answered into the log.")
@network_option
@identity_option
@json_option
@click.pass_context
def serve(
    ctx: click.Context,
    /,
    source: str | None,
    canister: str | None,
    precision: str | None,
    open_source: Callable[[str], Checkpoint],
    network: str | None,
    identity: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Serve a model over HTTP (needs FastAPI).

    SOURCE is a model as `icgpt upload` takes it. Without one, and without a canister, it is
    model.pth of the current folder, or the built-in model. The service runs until Ctrl-C or
    SIGTERM; its log goes to stderr, a JSON document a line. The environment of other services is
    understood: CKPT_PATH, MODEL_NAME, TORCH_THREADS, MAX_CTX, API_KEY.
    """
    source, canister = _chosen(ctx, source, canister)
    check_installed()
    from icgpt.serve import running
    from icgpt.serve.app import build

    settings = _settings(options)

    def load(checkpoint: Checkpoint) -> Backend:
        return _local(checkpoint, precision, settings)

    if canister is None:
        source = source or _usual_source()
        backend = load(opened_as(open_source, source))
    else:
        backend = _remote(canister, network, identity, settings)
    told = {name: options[name] for name in ("got", "got_prompt", "spam", "spam_prompt")}
    tasks = tasks_of(open_source, load, source if canister is None else None, **told)
    sockets = running.bound(settings.host, settings.ports)
    urls = running.urls(settings.host, sockets)

    def ready() -> None:
        facts = backend.facts
        told = {"urls": urls, "model": facts.name, "backend": facts.backend}
        answer(as_json, told, "\n".join(urls))

    if settings.host not in LOOPBACK and not settings.api_keys:
        say("Whoever reaches this address can use the model: no key is set.")
    running.serve(build(backend, settings, tasks), settings, sockets, ready)


def check_installed() -> None:
    """ServeMissingError where what the service needs is not there."""
    from icgpt.serve.errors import ServeMissingError

    if any(find_spec(name) is None for name in _NEEDED):
        raise ServeMissingError


def _chosen(
    ctx: click.Context, source: str | None, canister: str | None
) -> tuple[str | None, str | None]:
    """One of the two at most: what was said later counts, a flag before what is set elsewhere."""
    if source is None or canister is None:
        return source, canister
    said = [ctx.get_parameter_source(name) for name in ("source", "canister")]
    if said[0] == said[1] == ParameterSource.COMMANDLINE:
        raise click.UsageError("Either --local or --canister: one model writes.")
    if said[1] == ParameterSource.COMMANDLINE:
        return None, canister
    return source, None


def _usual_source() -> str:
    """What is served when nobody says what."""
    from icgpt.demo import MODEL

    return _USUAL_FILE if Path(_USUAL_FILE).is_file() else MODEL


def _settings(options: dict[str, Any]) -> Settings:
    from icgpt.serve.settings import PORT, Settings

    return Settings(
        host=options["host"],
        ports=options["ports"] or (PORT,),
        name=options["name"],
        api_keys=options["api_keys"],
        instances=options["instances"],
        at_once=options["at_once"],
        queue=options["queue"],
        max_context=options["max_context"],
        max_tokens=options["max_tokens"],
        max_body_bytes=options["max_body"],
        rate_limit=options["rate_limit"],
        drain_seconds=options["drain"],
        log_prompts=options["log_prompts"],
    )


def _local(checkpoint: Checkpoint, precision: str | None, settings: Settings) -> Backend:
    from icgpt.serve.local import PRECISION, LocalBackend

    say(f"Loading {checkpoint.name}")
    return LocalBackend(checkpoint, precision or PRECISION, settings.instances, settings.name)


def _remote(
    canister: str, network: str | None, identity: str | None, settings: Settings
) -> Backend:
    from icgpt.client import AsyncModelCanister
    from icgpt.connect import connect_async
    from icgpt.fleet import AsyncFleet
    from icgpt.fleet_members import in_any_order
    from icgpt.serve.canister import CanisterBackend, Remote

    with opened(network, identity) as (agent, target, project):
        caller = connect_async(target, agent.identity)
        members = project.fleet(canister, target.name)
        model: Remote
        if members:
            model = AsyncFleet(caller, in_any_order(members))
        else:
            model = AsyncModelCanister(caller, project.resolve(canister, target.name))
    return CanisterBackend(model, settings.name or canister)

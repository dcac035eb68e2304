"""`icgpt models`: what can be uploaded by name, and what the project's canisters run."""

from __future__ import annotations

from typing import Any, Final

import click

from icgpt.cli.common import (
    answer,
    bytes_text,
    count_text,
    identity_option,
    json_option,
    model_text,
    network_option,
    opened,
    say,
)
from icgpt.cli.help import Command

MAX_CARD_BYTES: Final = 256 << 10


@click.command(cls=Command, examples=["icgpt models", "icgpt models --network ic --json"])
@network_option
@identity_option
@json_option
def models(network: str | None, identity: str | None, as_json: bool) -> None:
    """List models, built in and in canisters."""
    from icgpt.errors import NetworkError

    inside = _built_in()
    try:
        running = _running(network, identity)
    except NetworkError as error:
        # What is built in can be listed in any case.
        running = []
        say(f"Canisters can't be asked: {error}.")
    lines = ["built in"]
    for one in inside:
        lines.append(
            f"  {one['name']}: {one['family']}, {count_text(one['parameters'])} parameters, "
            f"{bytes_text(one['bytes'])}, context {one['n_ctx']}, licence {one['license']}"
        )
        lines.append(f"    {one['about']}")
    lines.append("in canisters" if running else "in canisters: none is known here")
    lines += [f"  {one['canister']} ({one['canister_id']}): {one['words']}" for one in running]
    answer(as_json, {"built_in": inside, "canisters": running}, "\n".join(lines))


def _built_in() -> list[dict[str, Any]]:
    from icgpt.checkpoint import open_checkpoint
    from icgpt.checkpoint.source import built_in, built_in_folder

    found = []
    for name in built_in():
        checkpoint = open_checkpoint(name)
        config, folder = checkpoint.config, built_in_folder(name)
        card = folder / "README.md"
        found.append(
            {
                "name": name,
                "family": config.family,
                "parameters": checkpoint.parameters,
                "bytes": sum(file.stat().st_size for file in folder.iterdir()),
                "n_ctx": config.n_ctx,
                "sha256": checkpoint.files["safetensors"].sha256().hex(),
                **_card(card.read_bytes()[:MAX_CARD_BYTES].decode() if card.is_file() else ""),
            }
        )
    return found


def _card(text: str) -> dict[str, str | None]:
    """The licence and the first words of a model card in Hugging Face's form."""
    _, _, rest = text.partition("---\n")
    head, _, body = rest.partition("\n---\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    paragraphs = [part for part in body.split("\n\n") if part and not part.startswith("#")]
    about = " ".join(paragraphs[0].split()) if paragraphs else None
    return {"license": fields.get("license"), "about": about}


def _running(network: str | None, identity: str | None) -> list[dict[str, Any]]:
    from icgpt.client import ModelCanister
    from icgpt.errors import RefusedError
    from icgpt.page import name_for
    from icgpt.principal import to_text
    from icgpt.project import DEFAULT_NAME

    found = []
    with opened(network, identity) as (agent, target, project):
        pages = {name_for(model) for model in (DEFAULT_NAME, *project.names())}
        for name in project.names():
            canister_id = project.lookup(name, target.name)
            if canister_id is None or name in pages:
                continue
            value: dict[str, Any] = {"canister": name, "canister_id": to_text(canister_id)}
            try:
                info = ModelCanister(agent, canister_id).info()
            except RefusedError as error:
                found.append({**value, "model": None, "words": error.message})
                continue
            shape = info.architecture
            words = "no model"
            if shape is not None:
                words = f"{model_text(info, shape)}, context {shape.n_ctx}"
            found.append({**value, "model": info.to_json() if shape else None, "words": words})
    return found

"""`icgpt status`: network, canister and model at a glance."""

from __future__ import annotations

from typing import Any

import click

from icgpt.cli.common import answer, bytes_text, calling_options, kind_text, opened
from icgpt.cli.help import Command
from icgpt.results import FileState, ModelInfo


@click.command(cls=Command, examples=["icgpt status", "icgpt status --canister model --json"])
@calling_options
def status(canister: str, network: str | None, identity: str | None, as_json: bool) -> None:
    """Show network, canister and model."""
    from icgpt.client import ModelCanister
    from icgpt.errors import no_such_canister
    from icgpt.page import address
    from icgpt.principal import to_text

    with opened(network, identity) as (agent, target, project):
        canister_id = project.resolve(canister, target.name)
        text = to_text(canister_id)
        module = agent.module_hash(canister_id)
        if module is None and agent.controllers(canister_id) is None:
            raise no_such_canister(target.name)
        value: dict[str, Any] = {
            "network": target.name,
            "url": target.url,
            "identity": str(agent.identity),
            "canister": canister,
            "canister_id": text,
            "http": address(target, canister_id),
            "module_hash": module.hex() if module else None,
            "model": None,
            "files": None,
            "access": None,
        }
        fleet = project.fleet(canister, target.name)
        if fleet:
            value["fleet"] = {name: to_text(id_) for name, id_ in fleet.items()}
        lines = [
            ("network", f"{target.name}  {target.url}"),
            ("identity", str(agent.identity)),
            ("canister", canister if canister == text else f"{canister}  {text}"),
        ]
        if fleet:
            lines.append(("fleet", f"{', '.join(fleet)}; this is the first of them"))
        if module is None:
            lines.append(("code", "none; install it with: icgpt deploy"))
        else:
            model = ModelCanister(agent, canister_id)
            info, files, access = model.info(), model.files(), model.access()
            value["model"] = info.to_json()
            value["files"] = {name: state.to_json() for name, state in files.items()}
            value["access"] = access.to_json()
            lines.append(("code", f"{info.module_version}  sha256 {module.hex()[:16]}…"))
            lines.append(("http", f"{value['http']} has model.json, health and metrics"))
            lines += _model_lines(info)
            lines += _file_lines(files)
            public = "anyone may use it" if access.public else "users and managers only"
            lines.append(("access", public))
    answer(as_json, value, "\n".join(f"{name:<10}{words}" for name, words in lines))


def _model_lines(info: ModelInfo) -> list[tuple[str, str]]:
    if info.setup == "setting_up":
        part = 100 * info.setup_done // max(info.setup_total, 1)
        return [("model", f"is being set up, {part} % done")]
    shape = info.architecture
    if shape is None:
        return [("model", "none; put one in with: icgpt upload CANISTER SOURCE")]
    return [
        *([("name", info.name)] if info.name else []),
        (
            "model",
            f"{kind_text(info, shape)}: "
            f"{shape.n_layer} layers, {shape.n_head} heads, {shape.n_embd} wide",
        ),
        (
            "context",
            f"{shape.n_ctx} tokens; then it {'slides on' if info.context == 'slide' else 'stops'}",
        ),
        (
            "tokenizer",
            f"{shape.vocab_size} ids" if info.tokenizer else "none: token ids only (icgpt infer)",
        ),
        ("template", "the model's own" if info.template else "none"),
    ]


def _file_lines(files: dict[str, FileState]) -> list[tuple[str, str]]:
    return [
        ("uploading", f"{bytes_text(state.staged.length)} of {name} have been sent so far")
        for name, state in files.items()
        if state.staged is not None and state.staged.length
    ]

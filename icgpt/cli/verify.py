"""`icgpt verify`: whether a receipt holds, and whether its answer can be had again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icgpt.cli.common import answer, identity_option, json_option, network_option, opened, say
from icgpt.cli.completing import FILES, MODELS
from icgpt.cli.help import Command
from icgpt.cli.sources import precision_option, source_options

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint
    from icgpt.kept_receipt import KeptReceipt, Proven


@click.command(
    cls=Command,
    examples=[
        "icgpt verify romeo.json",
        "icgpt verify romeo.json --replay",
        "icgpt verify romeo.json --replay --local shakespeare-char",
        "icgpt verify romeo.json --root-key network.der --json",
    ],
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--root-key",
    metavar="FILE|HEX",
    shell_complete=FILES,
    help="The network's root key; the one that is known here when left out.",
)
@click.option("--replay", is_flag=True, help="Also let the canister write the answer again.")
@click.option(
    "--local",
    metavar="SOURCE",
    shell_complete=MODELS,
    help="Replay in this process, with the model as `icgpt upload` takes it.",
)
@precision_option("With --local: how the canister held the weights; tried out when left out.")
@source_options
@network_option
@identity_option
@json_option
def verify(
    file: Path,
    root_key: str | None,
    replay: bool,
    local: str | None,
    precision: str | None,
    open_source: Callable[[str], Checkpoint],
    network: str | None,
    identity: str | None,
    as_json: bool,
) -> None:
    """Check the receipt of an answer.

    Offline: that this canister, with this code and this model, gave this text for this prompt,
    vouched for by its subnet. The exit code is 5 when anything of it does not hold. What is printed
    comes from the certificates, the time too.
    """
    from icgpt import kept_receipt, trust
    from icgpt.principal import to_text

    if local is not None and not replay:
        raise click.UsageError("--local says how to --replay.")
    receipt = kept_receipt.read(file)
    if root_key is None:
        trusted = trust.known_root_key(receipt.network)
    else:
        trusted = trust.read_root_key(root_key)
    proven = receipt.verify(trusted)
    say("The receipt holds.")
    if local is not None:
        from icgpt.replaying import replay_locally

        replay_locally(proven, open_source(local), precision)
    elif replay:
        _replay(receipt, proven, trusted, network, identity)
    if replay:
        say("Written again, the answer is the same.")
    replayed = ("here" if local is not None else "canister") if replay else None
    value = {
        "canister": to_text(receipt.canister),
        "network": receipt.network if root_key is None else None,
        "root_key": trusted.hex(),
        "job": receipt.job.hex(),
        **proven.to_json(),
        "replayed": replayed,
    }
    answer(as_json, value, _lines(value))


def _replay(
    receipt: KeptReceipt,
    proven: Proven,
    trusted: bytes,
    network: str | None,
    identity: str | None,
) -> None:
    from icgpt.client import ModelCanister
    from icgpt.errors import VerificationError

    with opened(network or receipt.network, identity) as (agent, target, _):
        if target.root_key != trusted:
            raise VerificationError(
                f"'{target.name}' is not the network of the receipt", "Name it with --network."
            )
        ModelCanister(agent, receipt.canister).replay(proven)


def _lines(value: dict[str, Any]) -> str:
    installed = value["installed_at"]
    options = {"seed": value["seed"], **value["options"]}
    lines = [
        ("canister", value["canister"]),
        ("network", value["network"] or f"of the root key …{value['root_key'][-16:]}"),
        ("code", value["module_hash"] + (f", installed {installed}" if installed else "")),
        ("model", value["model"]),
        ("asked", f"{value['asked_at']} by {value['caller']}"),
        ("answered", value["answered_at"]),
        ("options", ", ".join(f"{name} {json.dumps(one)}" for name, one in options.items())),
        ("prompt", json.dumps(value["prompt"], ensure_ascii=False)),
        ("ended", f"{value['finish']}, {len(value['token_ids'])} tokens"),
    ]
    if value["text"] is None:
        lines.append(("token ids", " ".join(map(str, value["token_ids"]))))
    else:
        lines.append(("text", json.dumps(value["text"], ensure_ascii=False)))
    return "\n".join(f"{name:<11}{words}" for name, words in lines)

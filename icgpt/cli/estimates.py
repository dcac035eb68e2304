"""What an upload takes, told before it is made: `upload --dry-run` and `cost --upload`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icgpt.cli.common import answer, bytes_text, count_text, say
from icgpt.cost import usd

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint


def introduce(checkpoint: Checkpoint) -> None:
    """Says which model was found."""
    say(
        f"{checkpoint.name}: {checkpoint.parameters:,} parameters, {bytes_text(checkpoint.length)}"
        + ("" if "tokenizer" in checkpoint.files else ", no tokenizer")
    )


def tell_estimate(
    as_json: bool, checkpoint: Checkpoint, precision: str | None, seed_flow: bool
) -> None:
    """Prints what an upload of this model takes."""
    from icgpt.upload_cost import estimate

    found = estimate(checkpoint, precision, seed_flow)
    value = {"source": checkpoint.name, "parameters": checkpoint.parameters, **found.to_json()}
    kinds = ", ".join(f"{kind} {bytes_text(size)}" for kind, size in found.files.items())
    lines = (
        ("bytes", f"{bytes_text(found.bytes)}: {kinds}"),
        ("weights", f"in {found.precision}"),
        ("messages", f"{found.messages:,}"),
        ("cycles", f"{count_text(found.cycles)}, {usd(found.cycles):.4f} USD on mainnet"),
        (
            "time",
            f"about {_seconds(found.local_seconds)} on a local network, where cycles are free",
        ),
        ("", f"at least {_seconds(found.mainnet_seconds)} on mainnet"),
    )
    answer(as_json, value, "\n".join(f"{name:<10}{words}" for name, words in lines))


def _seconds(count: float) -> str:
    if count < 9.95:
        return f"{count:.1f} s"
    return f"{count:.0f} s" if count < 120 else f"{count / 60:.0f} min"

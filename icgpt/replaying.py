"""What a receipt proves, computed again: by the canister, or in this process.

The same prompt, options and seed give the same tokens wherever the same model runs, so an answer
can be had again by whoever has the model, and compared token by token.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icgpt import methods
from icgpt.errors import UsageError, VerificationError
from icgpt.kept_receipt import Proven
from icgpt.methods import Handle
from icgpt.steps import Steps

if TYPE_CHECKING:
    from icgpt.checkpoint import Checkpoint
    from icgpt.engine import Packed


def replay(canister: Handle, proven: Proven) -> Steps[None]:
    """Lets a canister write the answer again; VerificationError when it is another one.

    What it writes now is proven, too, by a certificate of its own.
    """
    options = _options(proven)
    done = yield from methods.complete(canister, proven.prompt, **options)
    if done.job is None:
        raise VerificationError("the canister gave its answer without a job")
    again = yield from methods.receipt(canister, done.job)
    if again.model != proven.model:
        raise VerificationError(
            "the canister runs another model now",
            "Replay with the model of the receipt itself: icgpt verify FILE --replay --local "
            "SOURCE",
        )
    _compare(proven, again.prompt, again.token_ids, again.finish)
    _compare_all(proven, [one["token_ids"] for one in again.sequences or ()])


def replay_locally(proven: Proven, checkpoint: Checkpoint, precision: str | None = None) -> None:
    """Writes the answer again in this process; VerificationError when it is another one.

    Args:
        proven: what a receipt proves.
        checkpoint: the model, whose packed weights must be just those of the receipt.
        precision: "f32", "int8" or "int16"; found out when left out.
    """
    from icgpt.engine import Engine

    options = {**_options(proven), "template": False, "echo": None}
    with tempfile.TemporaryDirectory(prefix="icgpt-replay-") as folder:
        packed = _packed(proven.model, checkpoint, precision, Path(folder) / "packed")
        with Engine.load(checkpoint, packed=packed.path) as engine:
            count = engine.submit(proven.prompt_ids, **options).sequences
            tokens: list[list[int]] = [[] for _ in range(count)]
            finishes: dict[int, str | None] = {}
            while engine.running:
                for event in engine.step():
                    tokens[event.index] += event.token_ids
                    finishes[event.index] = event.finish
    begun = list(proven.options["begun"] or ())
    _compare(proven, proven.prompt_ids, begun + tokens[0], finishes.get(0))
    _compare_all(proven, tokens)


def _options(proven: Proven) -> dict[str, Any]:
    options = {**proven.options, "seed": proven.seed}
    if proven.finish == "failed":
        raise UsageError("the job had failed, so there is nothing to replay")
    if proven.finish == "cancelled":
        if not proven.token_ids:
            raise UsageError("the job was cancelled before its first token: nothing to replay")
        options["max_new_tokens"] = len(proven.token_ids)  # as far as it had come
    if options["max_time"] is not None:
        if proven.finish == "length":
            if proven.sequences is not None:
                raise UsageError("its time may have ended the answers: they can't be replayed")
            options["max_new_tokens"] = len(proven.token_ids)
        options["max_time"] = None
    return options


def _packed(model: bytes, checkpoint: Checkpoint, precision: str | None, path: Path) -> Packed:
    """The packed weights with this SHA-256."""
    from icgpt.engine import pack

    usual = checkpoint.config.precision or "f32"
    others = [one for one in ("int8", "int16", "f32") if one != usual]
    for choice in [precision] if precision else [usual, *others]:
        packed = pack(checkpoint, path, choice)
        if packed.sha256 == model:
            return packed
    raise VerificationError(
        f"{checkpoint.name} is not the model of the receipt, whose packed weights have the SHA-256 "
        f"{model.hex()[:16]}…",
        "Name the model that the canister had then, with --precision if it was converted.",
    )


def _compare_all(proven: Proven, found: list[list[int]]) -> None:
    """Compares all of several answers."""
    if proven.sequences is not None and found != [one["token_ids"] for one in proven.sequences]:
        raise VerificationError(
            "one of the answers written again differs",
            "The code may have changed since; compare its hash with `icgpt status`.",
        )


def _compare(
    proven: Proven, prompt_ids: list[int], token_ids: list[int], finish: str | None
) -> None:
    if prompt_ids != proven.prompt_ids:
        raise VerificationError(
            "the prompt is read as other token ids now", "The canister has another tokenizer."
        )
    pairs = zip(token_ids, proven.token_ids, strict=False)
    same = next((at for at, (new, old) in enumerate(pairs) if new != old), None)
    if same is not None or len(token_ids) != len(proven.token_ids):
        at = min(len(token_ids), len(proven.token_ids)) if same is None else same
        raise VerificationError(
            f"the answer written again differs from token {at + 1} on",
            "The code may have changed since; compare its hash with `icgpt status`.",
        )
    if proven.finish not in ("cancelled", finish):
        raise VerificationError("the answer written again ends for another reason")

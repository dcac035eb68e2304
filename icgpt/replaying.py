"""What a receipt proves, computed again by the canister.

The same prompt, options and seed give the same tokens wherever the same model runs, so an answer
can be had again by whoever has the model, and compared token by token.
"""

from __future__ import annotations

from typing import Any

from icgpt import methods
from icgpt.errors import UsageError, VerificationError
from icgpt.kept_receipt import Proven
from icgpt.methods import Handle
from icgpt.steps import Steps


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
            "Upload the model of the receipt to replay it.",
        )
    _compare(proven, again.prompt, again.token_ids, again.finish)


def _options(proven: Proven) -> dict[str, Any]:
    options = {**proven.options, "seed": proven.seed}
    if proven.finish == "failed":
        raise UsageError("the job had failed, so there is nothing to replay")
    if proven.finish == "cancelled":
        if not proven.token_ids:
            raise UsageError("the job was cancelled before its first token: nothing to replay")
        options["max_new_tokens"] = len(proven.token_ids)  # as far as it had come
    return options


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

"""What a model is worth: its loss over a text, and what it writes.

Loss is in nats per token. A whole text's is taken over contiguous windows of `n_ctx`, each token
but the first predicted once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from icgpt.train.device import Device
from icgpt.train.model import Gpt
from icgpt.train.vocabulary import Ids

# In one step of evaluation: what bounds its memory.
EVAL_TOKENS = 1 << 13
EVAL_LOGITS = 1 << 26


def evaluate(model: Gpt, ids: Ids, n_ctx: int, device: Device) -> float:
    """Mean loss over a whole text; each process takes its share of the windows."""
    text = torch.from_numpy(ids)
    end = len(ids) - 1
    whole = end // n_ctx
    inputs = text[: whole * n_ctx].view(whole, n_ctx)
    targets = text[1 : whole * n_ctx + 1].view(whole, n_ctx)
    windows = max(1, min(EVAL_TOKENS, EVAL_LOGITS // model.vocab_size) // n_ctx)
    pieces = list(zip(inputs.split(windows), targets.split(windows), strict=True))
    if whole * n_ctx < end:
        pieces.append((text[whole * n_ctx : end][None], text[whole * n_ctx + 1 :][None]))
    total = 0.0
    model.eval()
    with torch.no_grad():
        for x, y in pieces[device.rank :: device.world]:
            with device.autocast():
                logits = model(device.put(x)).flatten(0, 1)  # [B * T, V]
            targets = device.put(y).flatten()
            total += float(functional.cross_entropy(logits.float(), targets, reduction="sum"))
    model.train()
    return device.summed(total) / end


def sample(
    model: Gpt,
    device: Device,
    start: Sequence[int],
    length: int,
    temperature: float = 0.8,
    seed: int = 0,
) -> list[int]:
    """Ids that the model writes after `start`; 0 as a temperature takes the likeliest."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([list(start)], dtype=torch.long)
    model.eval()
    with torch.no_grad():
        for _ in range(length):
            logits = model(device.put(ids[:, -model.n_ctx :]))[0, -1].float().cpu()
            if temperature > 0:
                shares = (logits / temperature).softmax(0)
                drawn = torch.multinomial(shares, 1, generator=generator)
            else:
                drawn = logits.argmax(0, keepdim=True)
            ids = torch.cat((ids, drawn[None]), dim=1)
    model.train()
    return [int(i) for i in ids[0, len(start) :]]

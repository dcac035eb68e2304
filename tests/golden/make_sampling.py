"""Write golden files of sampling: what transformers' own logits processors leave to draw from.

    pip install "transformers==4.55.*" torch numpy
    python tests/golden/make_sampling.py

Each case of `sampling.json` has options by transformers' names, the prompt, the answer so far, and
the logits: listed (null is minus infinity), or made by `logits` below from a seed, which the test
does in the same way. Expected are the kept ids with their probabilities; of large vocabularies the
number of kept ids, a hash of them, and some of the probabilities.

The processors are put together by transformers itself (`_get_logits_processor`), in its own order,
and run in 64 bits. Where a case is decided by less than rounding in 32 bits, another seed is taken.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

HERE = Path(__file__).parent
MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
MASS_MARGIN = 4e-7
KEY_MARGIN = 1e-5


class UnclearError(Exception):
    """Rounding could decide otherwise."""


def mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def logits(seed: int, size: int, spread: float, peak: float) -> np.ndarray:
    """`spread` and `peak` shape them: spread * u + peak * u^64, where u is uniform."""
    with np.errstate(over="ignore"):
        bits = mix(np.uint64(seed) + np.arange(1, size + 1, dtype=np.uint64) * np.uint64(GOLDEN))
    u = (bits >> np.uint64(11)).astype(np.float64) / 2.0**53
    power = u
    for _ in range(6):
        power = power * power
    return (spread * u + peak * power).astype(np.float32)


MODEL = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=4, n_positions=8, vocab_size=8))


def processed(
    values: np.ndarray, options: dict[str, Any], prompt: list[int], answer: list[int]
) -> np.ndarray:
    """The scores that transformers would draw from."""
    options = dict(options)
    ends = options.pop("eos_token_id", None)
    top_k = options.pop("top_k", 0)
    temperature = options.pop("temperature", 1.0)
    config = GenerationConfig(
        do_sample=True, top_k=top_k, temperature=temperature, eos_token_id=ends, **options
    )
    MODEL._prepare_special_tokens(config, device="cpu")
    ids = torch.tensor([prompt], dtype=torch.long)
    processors = MODEL._get_logits_processor(
        config, input_ids_seq_length=len(prompt), encoder_input_ids=ids, device="cpu"
    )
    scores = torch.tensor(values.astype(np.float64))[None]
    scores = torch.where(scores < -3e38, -torch.inf, scores)
    return processors(torch.tensor([prompt + answer], dtype=torch.long), scores)[0].numpy()


def check(values: np.ndarray, options: dict[str, Any], before: np.ndarray) -> None:
    """`before` are the scores without top_p and typical_p: how clear is what these decide?"""
    finite = before[np.isfinite(before)]
    top_p, typical_p = options.get("top_p"), options.get("typical_p")
    weights = np.exp(finite - finite.max())
    share = weights / weights.sum()
    if top_p is not None and top_p < 1:
        order = np.argsort(-finite, kind="stable")
        sums = np.cumsum(share[order])
        if np.abs(sums - top_p).min() < MASS_MARGIN:
            raise UnclearError
        kept = order[: int((sums < top_p).sum()) + 1]
        finite = finite[kept]
        weights = np.exp(finite - finite.max())
        share = weights / weights.sum()
    if typical_p is not None and typical_p < 1:
        information = -np.log(share)
        distance = np.abs(information - (share * information).sum())
        order = np.argsort(distance, kind="stable")
        sums = np.cumsum(share[order])
        if np.abs(sums - typical_p).min() < MASS_MARGIN:
            raise UnclearError
        last = min(int((sums < typical_p).sum()), len(order) - 1)
        gaps = distance[order] - distance[order[last]]
        if ((np.abs(gaps) < KEY_MARGIN) & (np.abs(gaps) > 0)).any():
            raise UnclearError


def fnv(ids: np.ndarray) -> int:
    value = 0xCBF29CE484222325
    for one in ids:
        value = ((value ^ int(one)) * 0x100000001B3) & MASK
    return value


def outcome(
    values: np.ndarray, options: dict[str, Any], prompt: list[int], answer: list[int], ties: bool
) -> dict[str, Any]:
    plain = {k: v for k, v in options.items() if k not in ("top_p", "typical_p")}
    if not ties:
        check(values, options, processed(values, plain, prompt, answer))
    scores = processed(values, options, prompt, answer)
    kept = np.flatnonzero(np.isfinite(scores))
    weights = np.exp(scores[kept] - scores[kept].max())
    share = weights / weights.sum()
    # What exp can't tell from nothing in 32 bits is no choice.
    kept, share = kept[share > 1e-36], share[share > 1e-36]
    if len(kept) <= 60:
        return {"ids": kept.tolist(), "probabilities": [float(f"{p:.9g}") for p in share]}
    some = np.linspace(0, len(kept) - 1, 40).astype(int)
    return {
        "count": len(kept),
        "hash": f"{fnv(kept):016x}",
        "some": [[int(kept[i]), float(f"{share[i]:.9g}")] for i in some],
    }


def made(name: str, size: int, spread: float, peak: float, options: dict[str, Any]) -> Any:
    """A case whose logits come from the first seed that makes it clear."""
    prompt, answer = [3 % size, 7 % size, 3 % size, 1 % size], [7 % size, 3 % size]
    for seed in range(1, 200):
        values = logits(seed, size, spread, peak)
        try:
            expected = outcome(values, options, prompt, answer, ties=False)
        except UnclearError:
            continue
        return {
            "name": name,
            "made": {"seed": seed, "size": size, "spread": spread, "peak": peak},
            "options": options,
            "prompt": prompt,
            "answer": answer,
            "ties": False,
            "expected": expected,
        }
    raise SystemExit(f"{name}: no seed makes a clear case")


def listed(
    name: str,
    values: list[float | None],
    options: dict[str, Any],
    prompt: list[int] | None = None,
    answer: list[int] | None = None,
    ties: bool = True,
) -> Any:
    array = np.array([-np.inf if v is None else v for v in values], dtype=np.float32)
    prompt, answer = prompt or [0], answer or []
    return {
        "name": name,
        "logits": values,
        "options": options,
        "prompt": prompt,
        "answer": answer,
        "ties": ties,
        "expected": outcome(array, options, prompt, answer, ties),
    }


FILTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cold": {"temperature": 0.3},
    "hot": {"temperature": 4.0},
    "top_k": {"top_k": 7},
    "top_k 50": {"top_k": 50, "temperature": 0.8},
    "top_k 700": {"top_k": 700},
    "top_k 20000": {"top_k": 20000},
    "top_p": {"top_p": 0.9},
    "top_p small": {"top_p": 0.05, "temperature": 1.7},
    "top_p large": {"top_p": 0.99},
    "typical_p": {"typical_p": 0.5},
    "typical_p large": {"typical_p": 0.95, "temperature": 0.7},
    "typical_p small": {"typical_p": 0.02},
    "top_k, top_p": {"top_k": 40, "top_p": 0.8, "temperature": 0.9},
    "all three": {"top_k": 300, "top_p": 0.95, "typical_p": 0.7, "temperature": 1.2},
    "wide three": {"top_k": 9000, "top_p": 0.9, "typical_p": 0.8},
    "top_p, typical_p": {"top_p": 0.9, "typical_p": 0.6},
    "penalty": {"repetition_penalty": 1.3},
    "reward": {"repetition_penalty": 0.6, "top_p": 0.7},
    "no_repeat 1": {"no_repeat_ngram_size": 1},
    "no_repeat 2": {"no_repeat_ngram_size": 2},
    "no_repeat 3": {"no_repeat_ngram_size": 3, "top_k": 30},
    "encoder 1": {"encoder_no_repeat_ngram_size": 1},
    "encoder 2": {"encoder_no_repeat_ngram_size": 2},
    "min_new_tokens": {"min_new_tokens": 5, "eos_token_id": [0, 2], "top_p": 0.6},
    "min_new_tokens reached": {"min_new_tokens": 2, "eos_token_id": [0, 2]},
    "everything": {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2,
        "encoder_no_repeat_ngram_size": 3,
        "min_new_tokens": 9,
        "eos_token_id": [4],
        "temperature": 0.85,
        "top_k": 25,
        "top_p": 0.9,
        "typical_p": 0.9,
    },
}

# Vocabulary, spread and peak: a few likely tokens, many likely tokens, all but flat.
SHAPES = {
    "64 peaked": (64, 6.0, 9.0),
    "65": (65, 5.0, 3.0),
    "513": (513, 8.0, 6.0),
    "1100 flat": (1100, 0.5, 0.2),
    "5003": (5003, 12.0, 2.0),
    "50257 peaked": (50257, 10.0, 14.0),
    "50257": (50257, 9.0, 4.0),
    "50257 flat": (50257, 0.9, 0.3),
}


def cases() -> list[Any]:
    found = [
        made(f"{shape}, {name}", size, spread, peak, options)
        for shape, (size, spread, peak) in SHAPES.items()
        for name, options in FILTERS.items()
    ]
    equal = [1.5] * 10
    steps = [0.0, 1.0, 1.0, 1.0, 2.0, 2.0, -1.0, None]
    found += [
        listed("one token", [0.3], {"top_p": 0.5, "typical_p": 0.5, "top_k": 3}),
        listed("two tokens", [0.3, 0.1], {"top_p": 0.4}),
        listed("two tokens, both", [0.3, 0.1], {"top_p": 0.6}),
        listed("three tokens", [1.0, 0.0, -1.0], {"typical_p": 0.3}),
        listed("equal, top_k", equal, {"top_k": 3}),
        listed("equal, top_p", equal, {"top_p": 0.45}),
        listed("equal, typical_p", equal, {"typical_p": 0.2}),
        listed("ties, top_k", steps, {"top_k": 4}),
        listed("ties, top_p", steps, {"top_p": 0.75}),
        listed("ties, typical_p", steps, {"typical_p": 0.5}),
        listed("ties, all", steps, {"top_k": 4, "top_p": 0.7, "typical_p": 0.6}),
        listed("impossible ones", [None, 2.0, None, 1.0, None], {"top_k": 4, "top_p": 0.99}),
        listed("impossible ones, typical", [None, 2.0, None, 1.0, None], {"typical_p": 0.3}),
        listed("one possible", [None, None, -5.0, None], {"top_p": 0.1, "typical_p": 0.1}),
        listed("huge", [3e38, 1e38, -3e38, 0.0], {"top_p": 0.9, "top_k": 3}),
        listed("huge and hot", [3e38, 2.999e38, -3e38, 0.0], {"temperature": 1e36}),
        listed("far apart", [0.0, -50.0, -80.0, -200.0], {"top_p": 0.99}),
        listed("tiny", [1e-38, 0.0, -1e-38, 1e-40], {"top_k": 2}, ties=True),
        listed("negative zero", [-0.0, 0.0, -1.0], {"top_k": 1}),
        listed("penalty of zero", [0.0, 1.0, -1.0, 2.0], {"repetition_penalty": 2.0}, [0, 1, 2]),
        listed("penalised once", [1.0, 1.0, 1.0], {"repetition_penalty": 3.0}, [1, 1, 1], [1, 1]),
        listed("a run longer than all", steps, {"no_repeat_ngram_size": 9}, [1, 2], [1]),
        listed("a run within itself", steps, {"no_repeat_ngram_size": 2}, [1, 1], [1]),
        listed("prompt alone", steps, {"encoder_no_repeat_ngram_size": 2}, [1, 2, 1], [3, 1, 4, 1]),
        listed("a prompt too short", steps, {"encoder_no_repeat_ngram_size": 3}, [1, 2]),
    ]
    return found


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(case) for case in cases())
    (HERE / "sampling.json").write_text(f"[\n{lines}\n]\n")

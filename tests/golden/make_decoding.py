"""Write decoding.json: what transformers' `generate` answers, for random options and small models.

    pip install "transformers==4.55.*" torch numpy safetensors
    python tests/golden/make_decoding.py

The models are those of make.py and make_gptj.py, whose folders must be there. A case has the model,
prompt, end ids and options, and the sequences that transformers gives, up to their end token, with
their scores where there are beams.

Where two scores lie so close together that the order of a sum in 32 bits could decide between
them, a case proves nothing and is left out; so it is where so many tokens are banned that
transformers goes on with what it has marked as impossible. `left_out` counts both.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from random_models import BASE
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.generation import beam_search, utils

HERE = Path(__file__).parent
MODELS = (
    "odd-heads",
    "half",
    "untied",
    "gelu",
    "two-blocks",
    "gptj-whole-head",
    "gptj-odd-heads",
    "gptj-half",
    "gptj-tied",
    "gptj-one-head",
)
CASES = 320
MARGIN = 2e-4
IMPOSSIBLE = -1e8


class UnclearError(Exception):
    """Rounding could decide otherwise, or all that is left is impossible."""


class Watched:
    """What `generate` compares, looked at while it does."""

    def __init__(self) -> None:
        self.topk = torch.topk
        self.argmax = torch.argmax
        self.add = beam_search.BeamHypotheses.add
        self.is_done = beam_search.BeamHypotheses.is_done
        self.finalize = beam_search.BeamSearchScorer.finalize
        self.heuristic = utils.GenerationMixin._check_early_stop_heuristic
        self.step = utils.GenerationMixin._get_top_k_continuations

    def __enter__(self) -> None:
        torch.topk, torch.argmax = self._topk, self._argmax
        watched = self

        def add(self: Any, hyp: Any, sum_logprobs: float, **more: Any) -> None:
            score = sum_logprobs / more["generated_len"] ** self.length_penalty
            if len(self) >= self.num_beams:
                apart(score, self.worst_score)
            watched.add(self, hyp, sum_logprobs, **more)

        def is_done(self: Any, best: float, cur_len: int, prompt: int = 0) -> bool:
            if len(self) >= self.num_beams and self.early_stopping is not True:
                never = self.early_stopping == "never" and self.length_penalty > 0
                length = (self.max_length if never else cur_len) - prompt
                apart(best / length**self.length_penalty, self.worst_score)
            return bool(watched.is_done(self, best, cur_len, prompt))

        def finalize(self: Any, *arguments: Any, **more: Any) -> Any:
            found = watched.finalize(self, *arguments, **more)
            clear(sorted((beam[0] for one in self._beam_hyps for beam in one.beams), reverse=True))
            return found

        def heuristic(**more: Any) -> Any:
            worst = more["beam_scores"].min().item()
            if more["early_stopping"] is not True and bool(more["is_sent_finished"].all()):
                penalty, prompt = more["length_penalty"], more["decoder_prompt_len"]
                never = more["early_stopping"] == "never" and penalty > 0
                length = (more["max_length"] if never else more["cur_len"]) - prompt
                apart(more["running_beam_scores"][0, 0].item() / length**penalty, worst)
            return watched.heuristic(**more)

        beam_search.BeamHypotheses.add = add
        beam_search.BeamHypotheses.is_done = is_done
        beam_search.BeamSearchScorer.finalize = finalize
        utils.GenerationMixin._check_early_stop_heuristic = staticmethod(heuristic)

    def __exit__(self, *_: object) -> None:
        torch.topk, torch.argmax = self.topk, self.argmax
        beam_search.BeamHypotheses.add = self.add
        beam_search.BeamHypotheses.is_done = self.is_done
        beam_search.BeamSearchScorer.finalize = self.finalize
        utils.GenerationMixin._check_early_stop_heuristic = staticmethod(self.heuristic)

    def _topk(self, values: torch.Tensor, k: int, *arguments: Any, **more: Any) -> Any:
        best = self.topk(values[0], min(k + 1, values.shape[-1])).values.tolist()
        if k > 1 and best[0] > IMPOSSIBLE and values.shape[-1] > 4 * k:
            # The first choice of a step: all of it must be possible, and clear.
            if best[k - 1] < IMPOSSIBLE:
                raise UnclearError("impossible")
            clear(best)
        elif best[0] > IMPOSSIBLE:
            clear(best)
        return self.topk(values, k, *arguments, **more)

    def _argmax(self, values: torch.Tensor, *arguments: Any, **more: Any) -> Any:
        best = self.topk(values[0], 2).values.tolist()
        if best[0] < IMPOSSIBLE:
            raise UnclearError("impossible")
        clear(best)
        return self.argmax(values, *arguments, **more)


def apart(one: float, other: float) -> None:
    """Both are possible and lie clearly apart, or one of them is impossible."""
    if min(one, other) > IMPOSSIBLE and abs(one - other) < MARGIN:
        raise UnclearError("close")


def clear(scores: list[float]) -> None:
    """Scores in falling order lie clearly apart."""
    for one, other in itertools.pairwise(scores):
        apart(one, other)


def maybe(rng: np.random.Generator, share: float, values: list[Any]) -> Any:
    return values[rng.integers(len(values))] if rng.random() < share else None


def options(rng: np.random.Generator, vocab: int, prompt: int, room: int) -> dict[str, Any]:
    """Options by transformers' names."""
    new = int(rng.integers(1, min(room, 26) + 1))
    found: dict[str, Any] = {}
    # A max_length of 20 is taken for one that was left out.
    if rng.random() < 0.8 or prompt + new == GenerationConfig().max_length:
        found["max_new_tokens"] = new
    else:
        found["max_length"] = prompt + new
    if rng.random() < 0.2:
        found["min_new_tokens"] = int(rng.integers(1, new + 1))
    elif rng.random() < 0.1:
        found["min_length"] = int(rng.integers(1, prompt + new + 1))
    kind = rng.random()
    if kind > 0.15:
        groups = int(rng.integers(2, 5)) if kind > 0.55 else 1
        size = int(rng.integers(1 if groups > 1 else 2, 6 if groups == 1 else 4))
        beams = groups * size
        found |= {
            "num_beams": beams,
            "num_return_sequences": int(rng.integers(1, beams + 1)),
            "early_stopping": [False, True, "never"][rng.integers(3)],
            "length_penalty": maybe(rng, 0.7, [0.0, 0.5, 2.0, -1.0, 1.0]),
        }
        if groups > 1:
            penalty = round(float(rng.choice([0.2, 0.5, 1.0, 2.5, 10.0])), 1)
            found |= {"num_beam_groups": groups, "diversity_penalty": penalty}
    found |= {
        "repetition_penalty": maybe(rng, 0.35, [0.8, 1.1, 1.3, 2.0]),
        "no_repeat_ngram_size": maybe(rng, 0.35, [1, 2, 3]),
        "encoder_no_repeat_ngram_size": maybe(rng, 0.25, [1, 2, 3]),
        "remove_invalid_values": maybe(rng, 0.1, [True]),
    }
    if rng.random() < 0.2:
        ids = rng.choice(vocab, 3, replace=False)
        found["logit_bias"] = [[int(one), round(float(rng.normal(0, 4)), 2)] for one in ids]
    return {name: value for name, value in found.items() if value is not None}


def answers(
    model: Any, prompt: list[int], ends: list[int], chosen: dict[str, Any]
) -> tuple[list[list[int]], list[float] | None]:
    """The sequences behind the prompt, and their scores."""
    chosen = dict(chosen)
    bias = chosen.pop("logit_bias", None)
    if bias:
        chosen["sequence_bias"] = {(token,): value for token, value in bias}
    config = GenerationConfig(
        do_sample=False,
        eos_token_id=ends or None,
        return_dict_in_generate=True,
        output_scores=True,
        **chosen,
    )
    ids = torch.tensor([prompt])
    with torch.no_grad():
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            trust_remote_code=True,
        )
    sequences = []
    for row in found.sequences.tolist():
        row = row[len(prompt) :]
        over = [at for at, token in enumerate(row) if token in ends]
        sequences.append(row[: over[0] + 1] if over else row)
    scores = getattr(found, "sequences_scores", None)
    return sequences, None if scores is None else [round(float(one), 5) for one in scores]


def case(model: Any, name: str, rng: np.random.Generator) -> dict[str, Any]:
    vocab, n_ctx = model.config.vocab_size, model.config.n_positions
    prompt = [int(i) for i in rng.integers(0, vocab, rng.integers(1, min(10, n_ctx // 2) + 1))]
    chosen = options(rng, vocab, len(prompt), n_ctx - len(prompt))
    plain = {
        "max_new_tokens": min(12, n_ctx - len(prompt)),
        "num_beams": 3,
        "num_return_sequences": 3,
    }
    usual = sorted({token for one in answers(model, prompt, [], plain)[0] for token in one})
    pick = usual if rng.random() < 0.7 else list(range(vocab))
    ends = [int(i) for i in rng.choice(pick, min(len(pick), rng.choice([0, 1, 1, 1, 1, 2])), False)]
    with Watched():
        sequences, scores = answers(model, prompt, ends, chosen)
    found = {"model": name, "prompt": prompt, "ends": ends, "options": chosen, "want": sequences}
    return found if scores is None else found | {"scores": scores}


def load(name: str) -> Any:
    """A model of the golden folders."""
    config = json.loads((HERE / name / "config.json").read_text())
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**BASE | config), attn_implementation="eager"
    ).eval()
    tensors = {
        key if key.startswith(("transformer.", "lm_head.")) else f"transformer.{key}": one.float()
        for key, one in load_file(HERE / name / "model.safetensors").items()
        if not key.endswith((".attn.bias", ".attn.masked_bias", ".attn.embed_positions"))
    }
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected or any(key != "lm_head.weight" for key in missing):
        raise SystemExit(f"{name}: {missing} {unexpected}")
    model.generation_config = GenerationConfig()
    return model


def main() -> None:
    warnings.simplefilter("ignore")
    cases: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    for number, name in enumerate(MODELS):
        model = load(name)
        rng = np.random.default_rng([455, number])
        made = 0
        while made < CASES // len(MODELS):
            try:
                cases.append(case(model, name, rng))
                made += 1
            except UnclearError as error:
                left_out[str(error)] += 1
        print(name, len(cases), dict(left_out))
    kinds = Counter(
        "groups" if "num_beam_groups" in one["options"]
        else "beams" if "num_beams" in one["options"]
        else "greedy"
        for one in cases
    )  # fmt: skip
    print(len(cases), dict(kinds), dict(left_out))
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in cases)
    (HERE / "decoding.json").write_text(
        f'{{"left_out":{json.dumps(left_out)},"cases":[\n{lines}\n]}}\n'
    )


if __name__ == "__main__":
    main()

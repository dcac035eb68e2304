"""Named training settings. A preset and a text fix the final weights on one kind of machine.

Units: sizes in elements, lengths in tokens (characters, in a model of characters), `batch` in
windows of `n_ctx` tokens, learning rates at their peak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from icgpt.train.vocabulary import BPE, CHARACTERS, GPT2

GELU_NEW: Final = "gelu_new"  # through tanh: GPT-2's own
GELU: Final = "gelu"  # through the error function: quicker on CPUs
MUON: Final = "muon"
ADAMW: Final = "adamw"


@dataclass(frozen=True)
class Settings:
    """All that a run needs to know besides its text."""

    n_layer: int
    n_head: int
    n_embd: int
    n_ctx: int
    dropout: float
    batch: int
    max_iters: int
    warmup: int  # steps in which the learning rate climbs to its peak
    matrix_lr: float  # Muon: the matrices inside the blocks
    learning_rate: float  # AdamW: embeddings, biases and norms; all, where there is no Muon
    weight_decay: float
    clip: float  # longest gradient that is not shortened
    eval_every: int  # steps between two looks at the validation part
    seed: int
    activation: str = GELU_NEW
    optimizer: str = MUON
    grad_accum: int = 1  # batches whose gradients make one step
    min_lr: float = 0.0  # the part of the learning rate that is left at the end
    beta2: float = 0.99  # AdamW's memory of squared gradients
    patience: int = 0  # evaluations without a better loss that end the run; 0: none do

    def changed(self, **wanted: Any) -> Settings:
        """The same with what the command line says otherwise; None says nothing."""
        return replace(self, **{name: one for name, one in wanted.items() if one is not None})

    def tokens_a_step(self) -> int:
        """How many tokens are predicted in one step."""
        return self.grad_accum * self.batch * self.n_ctx


@dataclass(frozen=True)
class Preset:
    """Settings, and the text and vocabulary that they were chosen for."""

    settings: Settings
    tokenizer: str
    vocab_size: int = 0  # of a BPE that is learnt
    data: str = "tiny-shakespeare"  # nothing, where the user has to name one
    shares: tuple[int, ...] = (90, 5, 5)  # percent that train, validate and test
    needs_model: bool = False  # whether it only trains a model further


_CHAR: Final = Settings(
    n_layer=6,
    n_head=6,
    n_embd=192,
    n_ctx=256,
    dropout=0.1,
    batch=16,
    max_iters=3200,
    warmup=100,
    matrix_lr=0.02,
    learning_rate=0.003,
    weight_decay=0.1,
    clip=1.0,
    eval_every=200,
    seed=1337,
)

PRESETS: dict[str, Preset] = {
    # The model in the box: 2.7 million parameters, 5.5 MB, an hour on two CPU cores,
    # validation loss 1.4239.
    "shakespeare-char": Preset(_CHAR, CHARACTERS, shares=(90, 10)),
    # The larger model in the box: 10 million parameters, 10.4 MB in int8, 78 minutes on one core,
    # test loss 4.0733.
    "shakespeare-bpe": Preset(
        _CHAR.changed(
            n_layer=7,
            n_head=5,
            n_embd=320,
            batch=24,
            max_iters=800,
            warmup=40,
            eval_every=50,
        ),
        BPE,
        vocab_size=4096,
        data="shakespeare-plays",
    ),
    # GPT-2's sizes, with what nanoGPT trains them by: for GPUs, and a text of your own.
    **{
        name: Preset(
            _CHAR.changed(
                **dict(zip(("n_layer", "n_head", "n_embd"), sizes, strict=True)),
                n_ctx=1024,
                dropout=0.0,
                batch=8,
                grad_accum=64,
                max_iters=600_000,
                warmup=2000,
                optimizer=ADAMW,
                learning_rate=rate,
                min_lr=0.1,
                beta2=0.95,
                eval_every=1000,
            ),
            GPT2,
            data="",
        )
        for name, sizes, rate in (
            ("gpt2", (12, 12, 768), 6e-4),
            ("gpt2-medium", (24, 16, 1024), 3e-4),
            ("gpt2-large", (36, 20, 1280), 2.5e-4),
            ("gpt2-xl", (48, 25, 1600), 2e-4),
        )
    },
    # Small careful steps from a model that knows something already; its sizes are taken over.
    "finetune": Preset(
        _CHAR.changed(
            batch=2,
            grad_accum=8,
            max_iters=200,
            warmup=20,
            optimizer=ADAMW,
            learning_rate=3e-5,
            beta2=0.95,
            eval_every=20,
            patience=5,
        ),
        GPT2,
        data="",
        needs_model=True,
    ),
    # GPT-2's vocabulary is large for a text of a megabyte: a narrow model, a short run.
    "shakespeare-gpt2": Preset(
        _CHAR.changed(
            n_layer=4,
            n_head=4,
            n_embd=128,
            n_ctx=128,
            dropout=0.2,
            max_iters=1000,
            warmup=50,
            eval_every=50,
        ),
        GPT2,
    ),
}

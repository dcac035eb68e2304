"""Named training settings. A preset and a text fix the final weights on one kind of machine.

Units: sizes in elements, lengths in characters (the tokens of a character model),
`batch` in windows of `n_ctx` characters, learning rates at their peak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


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
    other_lr: float  # AdamW: embeddings, biases and norms
    weight_decay: float
    clip: float  # longest gradient that is not shortened
    eval_every: int  # steps between two looks at the validation part
    seed: int

    def changed(self, max_iters: int | None, seed: int | None) -> Settings:
        """The same with what the command line says otherwise."""
        return replace(
            self,
            max_iters=self.max_iters if max_iters is None else max_iters,
            seed=self.seed if seed is None else seed,
        )


PRESETS: dict[str, Settings] = {
    # The model in the box: 2.7 million parameters, 5.5 MB, an hour on two CPU cores,
    # validation loss 1.4239.
    "shakespeare-char": Settings(
        n_layer=6,
        n_head=6,
        n_embd=192,
        n_ctx=256,
        dropout=0.1,
        batch=16,
        max_iters=3200,
        warmup=100,
        matrix_lr=0.02,
        other_lr=0.003,
        weight_decay=0.1,
        clip=1.0,
        eval_every=200,
        seed=1337,
    ),
}

"""GPT-2 in PyTorch, for training only: the canister's engine is what answers later.

Parameters carry the names and layouts of Hugging Face's GPT2LMHeadModel (`transformer.h.0.…`,
linear weights as [in, out]), so the state dict is the checkpoint and nothing is converted.
Shapes: B windows, T positions, C = n_embd, H heads of D = C / H, V symbols.
Paper: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).
"""

# PyTorch is an extra: where it is missing, mypy knows nothing of the classes below.
# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from icgpt.train.presets import GELU_NEW, Settings

LAYER_NORM_EPSILON = 1e-5


class Linear(nn.Module):
    """A linear layer whose weight lies as [in, out], as GPT-2 checkpoints have it."""

    def __init__(self, n_in: int, n_out: int, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out).normal_(0.0, std))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, in] -> [B, T, out]."""
        out = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return out.view(*x.shape[:-1], -1)


class Attention(nn.Module):
    """Causal self-attention. Its weights are not dropped out: that rules out the fused kernel."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.n_head = s.n_head
        self.c_attn = Linear(s.n_embd, 3 * s.n_embd, 0.02)
        self.c_proj = Linear(s.n_embd, s.n_embd, 0.02 / math.sqrt(2 * s.n_layer))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        b, t, c = x.shape
        qkv = self.c_attn(x).view(b, t, 3, self.n_head, c // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, T, D]
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(b, t, c))


class Mlp(nn.Module):
    """C -> 4C -> C with one of the two forms of GELU."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.form = "tanh" if s.activation == GELU_NEW else "none"
        self.c_fc = Linear(s.n_embd, 4 * s.n_embd, 0.02)
        self.c_proj = Linear(4 * s.n_embd, s.n_embd, 0.02 / math.sqrt(2 * s.n_layer))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        return self.c_proj(functional.gelu(self.c_fc(x), approximate=self.form))


class Block(nn.Module):
    """One transformer layer: norm, attention, norm, MLP, each added to the stream."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(s.n_embd, eps=LAYER_NORM_EPSILON)
        self.attn = Attention(s)
        self.ln_2 = nn.LayerNorm(s.n_embd, eps=LAYER_NORM_EPSILON)
        self.mlp = Mlp(s)
        self.drop = nn.Dropout(s.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        x = x + self.drop(self.attn(self.ln_1(x)))
        return x + self.drop(self.mlp(self.ln_2(x)))


class Gpt(nn.Module):
    """The whole model, with the output matrix tied to the token embedding."""

    def __init__(self, s: Settings, vocab_size: int) -> None:
        super().__init__()
        self.n_ctx, self.vocab_size = s.n_ctx, vocab_size
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocab_size, s.n_embd),
                "wpe": nn.Embedding(s.n_ctx, s.n_embd),
                "drop": nn.Dropout(s.dropout),
                "h": nn.ModuleList(Block(s) for _ in range(s.n_layer)),
                "ln_f": nn.LayerNorm(s.n_embd, eps=LAYER_NORM_EPSILON),
            }
        )
        nn.init.normal_(self.transformer["wte"].weight, std=0.02)
        nn.init.normal_(self.transformer["wpe"].weight, std=0.01)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [B, T] -> logits [B, T, V]."""
        parts = self.transformer
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = parts["drop"](parts["wte"](ids) + parts["wpe"](positions))
        for block in parts["h"]:
            x = block(x)
        return functional.linear(parts["ln_f"](x), parts["wte"].weight)

    def parameter_count(self) -> int:
        """How many numbers the checkpoint holds."""
        return sum(p.numel() for p in self.parameters())

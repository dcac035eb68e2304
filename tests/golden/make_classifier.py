"""Write the golden classifiers: what Hugging Face transformers says of a text's label.

    pip install "transformers==4.55.*" torch
    python tests/golden/make_classifier.py

A folder has what save_pretrained leaves, model.pth with the whole model as torch.save pickles it,
and labels.json: ids, and the logits of the labels that follow them.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPTJConfig,
    GPTJForSequenceClassification,
)

HERE = Path(__file__).parent
SIZES = {"n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 11, "pad_token_id": 0}
IDS = [3, 1, 4, 1, 5, 9, 2, 6]
SPREAD = 8.0  # random weights as they come make all texts alike


def main() -> None:
    torch.manual_seed(7)
    labels = {0: "ham", 1: "spam"}
    gpt2 = GPT2Config(**SIZES, n_embd=8, id2label=labels, label2id={"ham": 0, "spam": 1})
    gptj = GPTJConfig(**SIZES, n_embd=16, rotary_dim=4, num_labels=3)
    for name, model in (
        ("classifier", GPT2ForSequenceClassification(gpt2)),
        ("classifier-gptj", GPTJForSequenceClassification(gptj)),
    ):
        model.eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(torch.round(weight * SPREAD, decimals=3))
            logits = model(torch.tensor([IDS])).logits[0]
        folder = HERE / name
        model.save_pretrained(folder)
        torch.save(model, folder / "model.pth")
        (folder / "labels.json").write_text(
            json.dumps({"ids": IDS, "logits": [round(float(one), 6) for one in logits]}) + "\n"
        )


if __name__ == "__main__":
    main()

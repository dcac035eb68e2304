"""A trained folder means the same to everybody: our torch model, transformers, the canister."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_reference import Reference
from model_kit import MakeCanister, with_model
from tokenizers import Tokenizer

from icgpt.train import data, export
from icgpt.train.corpus import Corpus, prepare
from icgpt.train.presets import PRESETS

torch = pytest.importorskip("torch")

from icgpt.train import loop  # noqa: E402
from icgpt.train.device import Device  # noqa: E402
from icgpt.train.judging import sample  # noqa: E402

TEXT = "".join(f"{n} sheep and {n + 1} sheep are {2 * n + 1} sheep.\n" for n in range(300))
PROMPT = "17 sheep and 18 sheep"
NEW = 16


class Trained:
    """A small model, its folder, and what torch says."""

    def __init__(self, folder: Path, kind: str) -> None:
        torch.set_num_threads(1)
        settings = PRESETS["shakespeare-char"].settings.changed(
            n_layer=2, n_head=2, n_embd=32, n_ctx=64, batch=8, max_iters=30, warmup=3, eval_every=30
        )
        if kind == "bpe":
            settings = settings.changed(activation="gelu", optimizer="adamw", learning_rate=0.01)
        self.corpus: Corpus = prepare(data.cut(TEXT.encode(), (80, 20)), 64, kind, 280)
        export.open_folder(folder)
        self.folder = folder
        run = loop.Run(self.corpus, settings, folder, _Quiet(), Device())
        run.train()
        model = run.model.eval()
        self.ids = [int(i) for i in self.corpus.vocabulary.encode(PROMPT)]
        with torch.no_grad():
            self.logits = model(torch.tensor([self.ids]))[0].numpy()
        self.greedy = sample(model, Device(), self.ids, NEW, temperature=0.0)
        self.text = self.corpus.vocabulary.decode(self.greedy)


class _Quiet:
    def started(self, parameters: int, step: int) -> None:
        pass

    def stepped(self, step: int, loss: float) -> None:
        pass

    def checked(self, entry: dict[str, Any]) -> None:
        pass

    def wants_stop(self) -> bool:
        return False


@pytest.fixture(scope="module", params=["characters", "bpe"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp(request.param) / "model", request.param)


def test_the_formulas_say_the_same(trained: Trained) -> None:
    np.testing.assert_allclose(
        Reference(trained.folder).logits(trained.ids), trained.logits, atol=1e-4
    )


def test_tokenizers_says_the_same(trained: Trained) -> None:
    tokenizer = Tokenizer.from_file(str(trained.folder / "tokenizer.json"))
    assert tokenizer.encode(PROMPT).ids == trained.ids
    assert tokenizer.decode(trained.greedy) == trained.text
    vocabulary = json.loads((trained.folder / "vocabulary.json").read_bytes())
    assert vocabulary == tokenizer.get_vocab()


def test_transformers_says_the_same(trained: Trained) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.GPT2LMHeadModel.from_pretrained(
        trained.folder, torch_dtype=torch.float32
    ).eval()
    ids = torch.tensor([trained.ids])
    with torch.no_grad():
        np.testing.assert_allclose(model(ids).logits[0].numpy(), trained.logits, atol=1e-3)
        written = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW
        )
    assert written[0, len(trained.ids) :].tolist() == trained.greedy
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(trained.folder / "tokenizer.json")
    )
    assert tokenizer(PROMPT)["input_ids"] == trained.ids


def test_the_canister_says_the_same(trained: Trained, new_canister: MakeCanister) -> None:
    canister = with_model(new_canister(), trained.folder)
    np.testing.assert_allclose(canister.logits(trained.ids), trained.logits[-1], atol=1e-3)
    answer = canister.complete(PROMPT, max_new_tokens=NEW, temperature=0.0)
    assert answer.token_ids == trained.greedy
    assert answer.text == trained.text

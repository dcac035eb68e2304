"""The model card: a README.md that says what a model is and how to make it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from icgpt.train.corpus import Corpus
from icgpt.train.presets import Settings

if TYPE_CHECKING:
    from icgpt.train.loop import Result

_TEMPLATE = """\
---
license: mit
library_name: transformers
pipeline_tag: text-generation
---
# {name}

A GPT-2 of {parameters:,} parameters, trained {further}on {text}.
It continues text, one {unit} after the other, over a vocabulary of {vocab_size:,} {unit}s.

| what | figure |
|---|---|
{losses}
| text | {characters:,} characters, SHA-256 `{sha256}` |
| split | {split} |
| {unit}s | {train:,} train, {validation:,} validate, {test:,} test |
| steps | {iterations:,}, best at {best_iteration:,} |
| time | {minutes:.0f} minutes on {device} |

Losses are those of the float16 weights in this folder, in contiguous windows of {n_ctx}
{unit}s, every {unit} of a part but the first predicted once (for the training loss: as many
{unit}s from the start of the text as the validation part has).

![Training and validation loss](figure/loss.png)

## Make it again

```sh
{command}
```

{settings}

## Use it

```sh
icgpt upload model ./{name}
icgpt generate "ROMEO:" -n 100 -t 0.8
```

`model.safetensors` and `config.json` load in transformers' `GPT2LMHeadModel`, `tokenizer.json`
in `tokenizers`. The context slides: when {n_ctx} {unit}s are full, the oldest quarter goes.

## Sample

Temperature 0.8, after a new line:

```text
{sample}
```
{samples}"""


def card(
    name: str, command: str, corpus: Corpus, s: Settings, result: Result, start: str | None = None
) -> str:
    """The text of the card; `start` names the model that was trained further."""
    settings = ", ".join(f"{field.name} {getattr(s, field.name)}" for field in fields(s))
    text, unit = corpus.text, corpus.vocabulary.unit
    return _TEMPLATE.format(
        name=name,
        text=text.name,
        further=f"from {start} further " if start else "",
        unit=unit,
        vocab_size=corpus.vocabulary.size,
        losses="\n".join(_losses(corpus, result)),
        characters=len(text.train) + len(text.validation) + len(text.test),
        sha256=text.sha256,
        split=text.split,
        train=len(corpus.train),
        validation=len(corpus.validation),
        test=len(corpus.test),
        parameters=result.parameters,
        iterations=result.iterations,
        best_iteration=result.best_iteration,
        minutes=result.seconds / 60,
        device=result.device,
        n_ctx=s.n_ctx,
        command=command,
        settings=f"Settings: {settings}.",
        sample=result.sample.strip("\n"),
        samples="".join(f"\nAfter a prompt:\n\n```text\n{one}\n```\n" for one in result.samples),
    )


def _losses(corpus: Corpus, result: Result) -> Iterator[str]:
    """Rows of the table, for each part that there is."""
    unit = corpus.vocabulary.unit
    for part, loss in (
        ("validation", result.validation_loss),
        ("test", result.test_loss),
        ("train", result.train_loss),
    ):
        if loss is None:
            continue
        name = "training" if part == "train" else part
        yield f"| {name} loss, nats per {unit} | {loss:.4f} |"
        if unit != "character" and part != "train":
            yield f"| the same per character | {loss * corpus.per_character(part):.4f} |"

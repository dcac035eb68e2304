"""The model card: a README.md that says what a model is and how to make it again."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from icgpt.train.data import SHAKESPEARE_SHA256, Corpus
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

A character-level GPT-2 of {parameters:,} parameters, trained on {text}. It continues text,
one character after the other, over a vocabulary of {vocab_size} characters.

| what | figure |
|---|---|
| validation loss, nats per character | {validation_loss:.4f} |
| training loss, the same way | {train_loss:.4f} |
| text | {characters:,} characters, SHA-256 `{sha256}` |
| split | first {train:,} characters train, last {validation:,} validate |
| steps | {iterations:,}, best at {best_iteration:,} |
| time | {minutes:.0f} minutes on {threads} CPU threads |

Losses are those of the float16 weights in this folder, in contiguous windows of {n_ctx}
characters, every character of the validation part but the first predicted once (for the
training loss: as many characters from the start of the text).

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
in `tokenizers`. The context slides: when {n_ctx} characters are full, the oldest quarter goes.

## Sample

Temperature 0.8, after a single {first!r}:

```text
{sample}
```
"""


def describe(corpus: Corpus) -> str:
    """What the text is, as far as it is known."""
    known = corpus.sha256 == SHAKESPEARE_SHA256
    return "tiny Shakespeare" if known else "a text of the user's own"


def card(name: str, command: str, corpus: Corpus, s: Settings, result: Result) -> str:
    """The text of the card."""
    settings = ", ".join(f"{field.name} {getattr(s, field.name)}" for field in fields(s))
    return _TEMPLATE.format(
        name=name,
        text=describe(corpus),
        vocab_size=len(corpus.alphabet),
        characters=len(corpus.train) + len(corpus.validation),
        sha256=corpus.sha256,
        train=len(corpus.train),
        validation=len(corpus.validation),
        parameters=result.parameters,
        validation_loss=result.validation_loss,
        train_loss=result.train_loss,
        iterations=result.iterations,
        best_iteration=result.best_iteration,
        minutes=result.seconds / 60,
        threads=result.threads,
        n_ctx=s.n_ctx,
        command=command,
        settings=f"Settings: {settings}.",
        first=corpus.alphabet[0],
        sample=result.sample.strip("\n"),
    )

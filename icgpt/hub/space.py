"""A Gradio Space for a model: a folder that runs by itself, here and on the hub.

It holds app.py, requirements.txt, README.md with what the hub wants to know, this package and, of a
model that is not on the hub, the model.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Final

from icgpt.checkpoint import Checkpoint
from icgpt.hub.carried import carry_model, carry_package, requirements
from icgpt.hub.folders import new_folder

MODEL_FOLDER: Final = "model"
_EXTRAS: Final = ("hub", "ui")

_APP: Final = '''\
"""A page on which a model writes, as `icgpt ui` shows it."""

{imports}from icgpt.ui.standalone import run

run({model}, revision={revision!r}, title={title!r})
'''

_README: Final = """\
---
title: {title}
emoji: 🪶
colorFrom: indigo
colorTo: gray
sdk: gradio
{sdk_version}app_file: app.py
pinned: false
{models}---

A page on which {words} writes: seed text, max tokens, temperature, top N. The model runs on
icgpt's engine in WebAssembly; it needs no GPU and no PyTorch.

Run it on a machine of your own:

```bash
pip install -r requirements.txt
python app.py
```
"""


def write_space(
    folder: Path, title: str, model: Checkpoint | str, revision: str | None = None
) -> None:
    """Writes a Space.

    Args:
        folder: where to; it must be empty, or not there.
        title: what its page is called.
        model: a model that goes into the Space, or owner/name of one on the hub.
        revision: of a model on the hub.
    """
    if isinstance(model, Checkpoint):
        model.tokenizer()
    wanted = requirements(_EXTRAS)
    with new_folder(folder) as made:
        carry_package(made)
        (made / "requirements.txt").write_text("".join(f"{one}\n" for one in wanted))
        if isinstance(model, Checkpoint):
            carry_model(model, made / MODEL_FOLDER)
            imports = "from pathlib import Path\n\n"
            place = f'str(Path(__file__).with_name("{MODEL_FOLDER}"))'
        else:
            imports, place = "", repr(model)
        app = _APP.format(imports=imports, model=place, revision=revision, title=title)
        (made / "app.py").write_text(app)
        (made / "README.md").write_text(_readme(title, model))


def _readme(title: str, model: Checkpoint | str) -> str:
    local = isinstance(model, Checkpoint)
    try:
        sdk = f"sdk_version: {metadata.version('gradio')}\n"
    except metadata.PackageNotFoundError:
        sdk = ""  # then the hub takes its own latest one
    return _README.format(
        title=json.dumps(title, ensure_ascii=False),
        sdk_version=sdk,
        models="" if local else f"models:\n- {model}\npreload_from_hub:\n- {model}\n",
        words="a model" if local else f"[{model}](https://huggingface.co/{model})",
    )

"""A Truss for a model: the folder that Baseten's tools load and deploy.

It holds config.yaml, model/model.py with the class that they look for, this package under packages
and, of a model that is not on the hub, the model under data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from icgpt.checkpoint import Checkpoint
from icgpt.hub.carried import carry_model, carry_package, requirements
from icgpt.hub.folders import new_folder

MODEL_FOLDER: Final = "model"
AT_ONCE: Final = 8  # requests that share the engine's passes
_EXTRAS: Final = ("hub", "serve")
_EXAMPLE: Final = [{"prompt": "If I was a billionaire, I would", "max_length": 50}]

_MODEL: Final = '''\
"""What a Truss's server looks for: a model that goes on from prompts."""

from icgpt.serve.truss import TrussModel


class Model(TrussModel):
    """Takes a list of dictionaries with a prompt and parameters."""

{told}
'''


def write_truss(
    folder: Path,
    title: str,
    model: Checkpoint | str,
    precision: str,
    revision: str | None = None,
) -> None:
    """Writes a Truss.

    Args:
        folder: where to; it must be empty, or not there.
        title: what the model is called.
        model: a model that goes into the Truss, or owner/name of one on the hub.
        precision: how the weights are held.
        revision: of a model on the hub.
    """
    told: dict[str, str] = {"precision": precision}
    if isinstance(model, Checkpoint):
        model.tokenizer()
        told["folder"] = MODEL_FOLDER
    else:
        told["hub_id"] = model
        if revision is not None:
            told["revision"] = revision
    config = _config(title, requirements(_EXTRAS))
    with new_folder(folder) as made:
        carry_package(made / "packages")
        if isinstance(model, Checkpoint):
            carry_model(model, made / "data" / MODEL_FOLDER)
        (made / "model").mkdir()
        (made / "model" / "__init__.py").write_text("")
        lines = "\n".join(f"    {name} = {value!r}" for name, value in told.items())
        (made / "model" / "model.py").write_text(_MODEL.format(told=lines))
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (made / "config.yaml").write_text(text)


def _config(title: str, wanted: list[str]) -> dict[str, Any]:
    return {
        "model_name": title,
        "description": "A GPT that goes on from prompts, on a processor without PyTorch.",
        "python_version": "py311",
        "requirements": wanted,
        "resources": {"cpu": "1", "memory": "2Gi", "use_gpu": False},
        "runtime": {"predict_concurrency": AT_ONCE},
        "model_metadata": {"example_model_input": _EXAMPLE},
        "bundled_packages_dir": "packages",
        "data_dir": "data",
    }

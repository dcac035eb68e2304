"""The models that the benches run: the one in the box, and GPT-2's shapes with random weights."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WASM = ROOT / "canister" / "build" / "model.wasm.gz"
DEMO = ROOT / "icgpt" / "models" / "shakespeare-char"

sys.path.insert(0, str(ROOT / "tests" / "golden"))
import recipe  # noqa: E402

NAMES = ("demo", *recipe.SHAPES)
PRECISIONS = ("int8", "int16", "f32")


def folder_of(shape: str, cache: Path) -> Path:
    """The folder of a model: the one in the box, or one written to `cache` by its recipe."""
    if shape == "demo":
        return DEMO
    folder = cache / shape
    done = folder / "complete"
    if not done.exists():
        recipe.write(folder, shape)
        done.touch()
    return folder


def longest(shape: str, precision: str) -> int:
    """The longest context that is measured: minutes of f32 in a large shape tell nothing more."""
    if shape in ("demo", "gpt2-124m"):
        return 1 << 30
    return 128 if precision == "f32" else 512

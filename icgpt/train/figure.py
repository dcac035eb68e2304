"""figure/loss.png: the training and validation loss over the steps of a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

from icgpt.files import write_atomically
from icgpt.train import log
from icgpt.train.export import unwritable

FIGURE: Final = Path("figure") / "loss.png"
_TRAIN, _VALIDATION, _GREY = "#8a8f98", "#1f6feb", "#57606a"


def write(folder: Path, unit: str, test_loss: float | None) -> bool:
    """Draws what the log says; False where matplotlib is missing or there is nothing to draw."""
    entries = log.entries(folder)
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        return False
    if not entries:
        return False
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    steps = [entry["step"] for entry in entries]
    marker = "o" if len(steps) < 40 else None
    for name, colour in (("train", _TRAIN), ("validation", _VALIDATION)):
        label = "training (mean since the point before)" if name == "train" else name
        losses = [entry[name] for entry in entries]
        axes.plot(steps, losses, color=colour, marker=marker, markersize=3, label=label)
    best = min(entries, key=lambda entry: float(entry["validation"]))
    _mark_best(axes, best, steps)
    if test_loss is not None:
        axes.axhline(test_loss, color=_GREY, linestyle=":", linewidth=1, label="test, at the end")
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss, nats per {unit}")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    try:
        write_atomically(folder / FIGURE, picture.getvalue())
    except OSError as error:
        raise unwritable(folder / FIGURE, error) from error
    return True


def _mark_best(axes: Any, best: dict[str, Any], steps: list[int]) -> None:
    """The weights that were kept, with their loss beside them."""
    axes.plot(best["step"], best["validation"], "o", color=_VALIDATION, markersize=7)
    late = best["step"] > 0.6 * steps[-1]
    axes.annotate(
        f"{best['validation']:.3f} at step {best['step']:,}",
        (best["step"], best["validation"]),
        xytext=(-8 if late else 8, 12),
        textcoords="offset points",
        ha="right" if late else "left",
        color=_VALIDATION,
    )

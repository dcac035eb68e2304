"""What can go wrong in training, as types. Each says what happened and what to do next."""

from __future__ import annotations

from icgpt.errors import IcgptError


class DataError(IcgptError):
    """The text is missing, unreadable, not UTF-8 or too short."""

    kind = "data"


class VocabularyError(IcgptError):
    """A text has characters that the model has no token for, or a vocabulary can't be made."""

    kind = "vocabulary"


class ResumeError(IcgptError):
    """A run can't be gone on with: its state is damaged, or of other settings or another text."""

    kind = "resume"


class OutputError(IcgptError):
    """The output folder cannot be written, or holds a model already."""

    kind = "output"


class TorchMissingError(IcgptError):
    """PyTorch is not installed."""

    kind = "torch_missing"

    def __init__(self) -> None:
        super().__init__(
            "Training needs PyTorch, which is not installed",
            "Install it with: pip install 'icgpt[train]'",
        )


class DivergedError(IcgptError):
    """The loss is no longer a number."""

    kind = "diverged"

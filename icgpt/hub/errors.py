"""What the hub refuses, and what is missing to ask it, as types."""

from __future__ import annotations

from icgpt.errors import IcgptError, UsageError


class HubMissingError(UsageError):
    """huggingface_hub is not installed."""

    kind = "hub_missing"

    def __init__(self, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs huggingface_hub, which is not installed",
            'Install it with: pip install "icgpt[hub]"',
        )


class TokenError(IcgptError):
    """There is no token, or it may not do this."""

    kind = "token"
    usual_hint = "Set HF_TOKEN to a token of yours that may write there."


class HubRefusedError(IcgptError):
    """The hub refused what was sent, or what was asked of it."""

    kind = "hub_refused"


class FolderError(IcgptError):
    """A folder that can't be written, or holds something else already."""

    kind = "folder"
    usual_hint = "Choose another --out FOLDER, or remove it."

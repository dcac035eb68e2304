"""What can go wrong before a page is there, as types."""

from __future__ import annotations

from icgpt.errors import IcgptError


class GradioMissingError(IcgptError):
    """Gradio is not installed."""

    kind = "gradio_missing"

    def __init__(self) -> None:
        super().__init__(
            "The page needs Gradio, which is not installed",
            'Install it with: pip install "icgpt[ui]"',
        )


class AddressError(IcgptError):
    """The address or the port can't be had."""

    kind = "address"
    usual_hint = "Choose another one with --port, or leave it out."

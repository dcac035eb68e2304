"""huggingface_hub where it is installed, and the errors that it may raise."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from icgpt.errors import NetworkError, UsageError
from icgpt.hub.errors import HubMissingError, HubRefusedError, TokenError


def library(purpose: str) -> Any:
    """The library; HubMissingError, with what it was wanted for, where it is not installed."""
    try:
        found = import_module("huggingface_hub")
        utilities = import_module("huggingface_hub.utils")
        import_module("huggingface_hub.errors")
    except ImportError as error:
        raise HubMissingError(purpose) from error
    if not sys.stderr.isatty():
        utilities.disable_progress_bars()
    return found


def endpoint() -> str | None:
    """The hub's address, where the environment names another one."""
    return os.environ.get("HF_ENDPOINT") or None


def refusals(hub: Any) -> tuple[type[BaseException], ...]:
    """What the library raises when the hub refuses or can't be reached."""
    # Its versions are built on different HTTP libraries, whose errors its own one derives from.
    plain = (object, BaseException, Exception)
    derived = [one for one in hub.errors.HfHubHTTPError.__mro__ if one not in plain]
    return (*derived, OSError, ValueError)


def told(error: BaseException) -> str:
    """The library's words on one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]


def sending_failed(
    hub: Any, repository: str, error: BaseException
) -> TokenError | HubRefusedError | NetworkError | UsageError:
    """The typed error for one that the library raised while something was sent."""
    answer = getattr(error, "response", None)
    status = getattr(answer, "status_code", None)
    if status == 401 or isinstance(error, hub.errors.LocalTokenNotFoundError):
        return TokenError(f"the hub does not know who wants to write to {repository}")
    if status == 403:
        return TokenError(f"this token may not write to {repository}")
    if isinstance(error, hub.errors.RevisionNotFoundError):
        return HubRefusedError(
            f"{repository} has no such branch", "Name a branch of it with --branch."
        )
    if status == 404:
        return TokenError(f"there is no {repository} on the hub, or this token may not see it")
    if status is not None or type(error) is ValueError:
        return HubRefusedError(
            f"the hub refused what was sent to {repository}: {_said(error, answer)}",
            "Mend that, then send it again: nothing was changed there.",
        )
    return NetworkError(
        f"the hub can't be reached: {told(error)}", "Is this machine online? Then try again."
    )


def _said(error: BaseException, answer: Any) -> str:
    words = getattr(error, "server_message", None)
    if words:
        return " ".join(str(words).split())[:200]
    return " ".join(str(error).split())[:200] if answer is None else told(error)

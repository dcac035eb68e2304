"""What a service refuses before or while a model writes, as types that name their HTTP status."""

from __future__ import annotations

from typing import ClassVar

from icgpt.errors import IcgptError


class ServeMissingError(IcgptError):
    """FastAPI and what goes with it are not installed."""

    kind = "serve_missing"

    def __init__(self) -> None:
        super().__init__(
            "The service needs FastAPI, which is not installed",
            'Install it with: pip install "icgpt[serve]"',
        )


class AddressError(IcgptError):
    """An address or a port can't be had."""

    kind = "address"
    usual_hint = "Choose another one with --port."


class ServiceError(IcgptError):
    """A request that is not answered; the base of those below."""

    status: ClassVar[int] = 500

    def __init__(
        self, message: str, hint: str | None = None, *, retry_after: int | None = None
    ) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after
        """Seconds after which it is worth while to ask again."""


class KeyMissingError(ServiceError):
    """No key came with the request, or none that is known."""

    kind = "unauthorized"
    status = 401


class NotFoundError(ServiceError):
    """What is asked for is not here."""

    kind = "not_found"
    status = 404


class UnknownModelError(NotFoundError):
    """The service has another model than the one that is named."""

    kind = "model_not_found"


class TooLargeError(ServiceError):
    """The request has more bytes than one may have."""

    kind = "too_large"
    status = 413


class BusyError(ServiceError):
    """The queue is full, or this caller asks too often."""

    kind = "busy"
    status = 429


class DownError(ServiceError):
    """What writes is not there just now."""

    kind = "down"
    status = 503


class PromptTooLongError(ServiceError):
    """The prompt does not fit into the context that the service gives."""

    kind = "context_length_exceeded"
    status = 422

"""Errors of the client and the command line: what happened, and what to do next.

Every class carries the exit code of the command line (0 done, 1 failed, 2 usage, 3 network
unreachable, 4 refused by the canister, 5 verification failed) and a short `kind` for programs that
read `--json`. `str(error)` is one line; `hint` is the next step, or None.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar


class IcgptError(Exception):
    """Something failed; the base of every error that this package raises on purpose."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "failed"
    usual_hint: ClassVar[str | None] = None
    """The next step where none is given."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.usual_hint

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints under "error"."""
        return {
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class UsageError(IcgptError):
    """The command or the call was given something that it can't take."""

    exit_code = 2
    kind = "usage"


class IdentityError(UsageError):
    """A key file that can't be read, or holds no key that we can sign with."""

    kind = "identity"
    usual_hint = "Give --identity a PEM file, or 'anonymous'."


class UnknownCanisterError(UsageError):
    """A canister name that no project file has an id for."""

    kind = "unknown_canister"


class ProjectError(IcgptError):
    """A project file (dfx.json, icp.yaml, canister_ids.json) that can't be read or written."""

    kind = "project"
    usual_hint = "Correct or remove that file."


class CheckpointError(IcgptError):
    """A model that is damaged, incomplete or of a kind that the canister can't run."""

    kind = "checkpoint"


class UploadError(IcgptError):
    """The canister holds something else than what was sent."""

    kind = "upload"


class FleetError(IcgptError):
    """Some canisters of a fleet did not do what all were to do; `failed` has why, by name."""

    kind = "fleet"

    def __init__(
        self, what: str, done: list[str], failed: dict[str, IcgptError], hint: str
    ) -> None:
        whole = len(done) + len(failed)
        super().__init__(
            f"{len(failed)} of {whole} canisters did not {what} ({_reasons(failed)})", hint
        )
        self.done = done
        self.failed = failed

    def to_json(self) -> dict[str, Any]:
        """Adds who did it, and the error of each that did not."""
        failed = {name: error.to_json() for name, error in self.failed.items()}
        return {**super().to_json(), "done": self.done, "failed": failed}


class NetworkError(IcgptError):
    """Nobody answered, or not with what the protocol asks for."""

    exit_code = 3
    kind = "network"
    usual_hint = "Is it the address of an Internet Computer? Another one is named with --network."

    def __init__(self, message: str, hint: str | None = None, *, maybe_sent: bool = False) -> None:
        super().__init__(message, hint)
        self.maybe_sent = maybe_sent
        """Whether the network may have got the request, although it gave no answer."""


class MalformedError(NetworkError):
    """The network answered, but not in the protocol's form."""

    kind = "malformed"


class BusyError(NetworkError):
    """The network or its gateway answered 429 or 503 for as long as it was asked."""

    kind = "busy"
    usual_hint = "The network is busy. Try again in a moment."


class CallTimeoutError(NetworkError):
    """The network took the call and gave no answer in the time allowed."""

    kind = "timeout"


class RefusedError(IcgptError):
    """The canister, or the network in its place, gave an error as its answer."""

    exit_code = 4
    kind = "refused"


class CanisterError(RefusedError):
    """The method answered with its `Err`."""

    kind = "canister_error"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint or _canister_hint(message))


class NoCanisterLeftError(RefusedError):
    """No canister of a fleet took a call; `tried` has each one's name and why it did not."""

    kind = "no_canister_left"
    usual_hint = "See each with: icgpt status --canister NAME"

    def __init__(self, tried: list[tuple[str, IcgptError]]) -> None:
        super().__init__(f"no canister of the fleet takes the call ({_reasons(dict(tried))})")
        self.tried = tried

    def to_json(self) -> dict[str, Any]:
        """Adds each canister's own error."""
        tried = {name: error.to_json() for name, error in self.tried}
        return {**super().to_json(), "tried": tried}


class RejectedError(RefusedError):
    """The call was rejected: reject code 1 to 6 and the platform's own error code."""

    kind = "rejected"

    def __init__(
        self, message: str, reject_code: int, error_code: str = "", method: str = ""
    ) -> None:
        words = _own_words(message)
        super().__init__(words, _REJECT_HINTS.get(error_code) or _canister_hint(words))
        self.platform_message = message
        self.reject_code = reject_code
        self.error_code = error_code
        self.method = method

    def to_json(self) -> dict[str, Any]:
        """Adds the codes of the platform."""
        return {
            **super().to_json(),
            "reject_code": self.reject_code,
            "error_code": self.error_code,
            "method": self.method,
            "platform_message": self.platform_message,
        }


def no_such_canister(network: str) -> RejectedError:
    """What the platform says to a call on a canister that it doesn't have."""
    return RejectedError(f"there is no such canister on '{network}'", 3, "IC0301")


class VerificationError(IcgptError):
    """A signature, a certificate or its age does not hold: the answer is not to be trusted."""

    exit_code = 5
    kind = "verification"
    usual_hint = (
        "The answer was not used. Try again; when that doesn't help, someone may be answering in "
        "the network's place."
    )


def of_several(what: str, done: list[str], failed: dict[str, IcgptError], hint: str) -> IcgptError:
    """The error where some of several canisters failed: their own, when all did so alike."""
    first, *others = failed.values()
    if not done and all(type(one) is type(first) and str(one) == str(first) for one in others):
        return first
    return FleetError(what, done, failed, hint)


def _reasons(errors: dict[str, IcgptError]) -> str:
    """What each canister has said, in one line."""
    return "; ".join(f"{name}: {error.message.rstrip('.')}" for name, error in errors.items())


def quoted(value: object) -> str:
    """A foreign value for a message: in quotes, escaped, and short."""
    text = repr(value)
    return text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 1] + "…"


_MAX_QUOTED = 80


def _own_words(message: str) -> str:
    """What the canister said, without the platform's frame round it."""
    # The search takes the square of the length, and a canister may reject with megabytes.
    if len(message) <= _MAX_FRAMED:
        for pattern in _FRAMES:
            if (found := pattern.search(message)) is not None:
                return found[1]
    return message


_MAX_FRAMED = 10_000


def _canister_hint(message: str) -> str | None:
    """What to do about a refusal: the canister speaks of its methods, this of what calls them."""
    known = (hint for part, hint in _CANISTER_HINTS.items() if part in message[:_MAX_FRAMED])
    return next(known, None)


_FRAMES = (
    re.compile(r"with message: '(.*)'\.\s+Consider gracefully", re.DOTALL),
    re.compile(r"with message: '(.*)'$", re.DOTALL),
    re.compile(r"[Cc]anister trapped explicitly: (.*)", re.DOTALL),
)

_CANISTER_HINTS = {
    "no model is set up": "Put one in with: icgpt upload",
    "no tokenizer is set up": "Without one there is: icgpt infer",
    "is not a manager of this canister": (
        "A manager does that with: icgpt access add PRINCIPAL --role manager"
    ),
    "may not use this model": (
        "A manager does that with: icgpt access add PRINCIPAL, or icgpt access public on"
    ),
    "are left of today's quota": "A manager changes quotas with: icgpt access quotas",
}

_REJECT_HINTS = {
    "IC0207": "The canister is out of cycles: top it up.",
    "IC0301": "Create a canister with: icgpt deploy",
    "IC0305": "Create a canister with: icgpt deploy",
    "IC0508": "The canister is stopped. Start it, then try again.",
    "IC0509": "The canister is being stopped. Start it, then try again.",
    "IC0512": "Only a controller may do this. Name its key with --identity PEM.",
    "IC0536": "The canister runs other code than this package expects. Upgrade it: icgpt deploy",
    "IC0537": "The canister has no code yet. Install it with: icgpt deploy",
}

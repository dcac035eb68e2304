"""A conversation with a model: what was said, and what of it the next request carries.

A model with a template gets each turn inside it, one after the other, as token ids, so the canister
finds the beginning of the prompt among what it has computed before. A plain model goes on with the
transcript. With two roles the transcript is a play: NAME, colon, a new line, what is said.

When the context is full, the oldest turns are left out of the request; a plain model whose context
slides gets the end of the transcript.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from icgpt.errors import UsageError

if TYPE_CHECKING:
    from icgpt.client import ModelCanister
    from icgpt.fleet import Fleet
    from icgpt.results import Completion, ModelInfo

FORMAT: Final = "icgpt chat"
VERSION: Final = 1
END_OF_SPEECH: Final = "\n\n"


@dataclass(frozen=True)
class Turn:
    """What was asked and answered, as text and as the token ids that a request carries."""

    you: str
    answer: str
    token_ids: list[int]


@dataclass(frozen=True)
class Request:
    """What is sent for the next turn."""

    you: str
    token_ids: list[int]
    own: list[int]
    """The ids of this turn alone."""
    left_out: int
    """Turns that are not, or not wholly, in it."""


class Conversation:
    """The turns so far with one model.

    Args:
        model: whose tokenizer is used; of a fleet, one that stays with a canister.
        roles: the names of both speakers in a play, for models without a template.
    """

    def __init__(self, model: ModelCanister | Fleet, roles: tuple[str, str] | None = None) -> None:
        self.model = model
        self.info: ModelInfo = model.info()
        shape = self.info.architecture
        if shape is None:
            raise UsageError("the canister has no model yet", "Put one in with: icgpt upload")
        if not self.info.tokenizer:
            raise UsageError(
                "the model has no tokenizer, so it can't be talked to",
                "Upload it with its tokenizer.json, or use token ids: icgpt infer",
            )
        if roles and self.info.template:
            raise UsageError(
                "the model has a template of its own, so it plays no roles", "Leave --roles out."
            )
        self.n_ctx = shape.n_ctx
        self.roles = roles
        self.turns: list[Turn] = []

    def stop(self) -> list[str] | None:
        """The texts that end an answer when nobody names others."""
        return [END_OF_SPEECH] if self.roles else None

    def request(self, you: str, longest: int, context: str | None = None) -> Request:
        """What to send next.

        Args:
            you: what is said; nothing lets a plain model go on.
            longest: new tokens that the answer may have.
            context: "stop" or "slide"; the model's own way when left out.
        """
        own = self._ids(you, self.turns)
        history = [turn.token_ids for turn in self.turns]
        whole = sum(map(len, history), len(own))
        if not whole:
            raise UsageError("the prompt is empty", "Say something.")
        if (context or self.info.context) == "slide" and not self.info.template:
            ids = [one for part in history for one in part] + own
            if whole <= self.n_ctx:
                return Request(you, ids, own, 0)
            kept = self.n_ctx - self.n_ctx // 4  # as the canister keeps of a longer prompt
            return Request(you, ids[-kept:], own, _turns_outside(history, whole - kept))
        room = min(longest, self.n_ctx // 2)
        if len(own) > self.n_ctx:
            raise UsageError(
                f"these are {len(own):,} tokens, and the model's context holds {self.n_ctx:,}",
                "Say less at once.",
            )
        left_out = 0
        while left_out < len(history) and whole + room > self.n_ctx:
            whole -= len(history[left_out])
            left_out += 1
        ids = [one for part in history[left_out:] for one in part] + own
        return Request(you, ids, own, left_out)

    def add(self, request: Request, done: Completion) -> Turn:
        """Keeps an answer."""
        ids = list(done.token_ids)
        template = self.info.template
        ending = template.stop if template else []
        if done.finish == "stop" and (not ids or ids[-1] not in ending):
            # A stop text, or the end of a document, is in the ids and must not stay in the history.
            ids = self._tokenize(done.text or "")
        return self._keep(request.you, done.text or "", request.own, ids)

    def _keep(self, you: str, answer: str, own: list[int], ids: list[int]) -> Turn:
        template = self.info.template
        if template and template.stop and (not ids or ids[-1] not in template.stop):
            ids = [*ids, template.stop[0]]
        turn = Turn(you, answer, own + ids)
        self.turns.append(turn)
        return turn

    def _ids(self, you: str, before: list[Turn]) -> list[int]:
        """The ids of a new turn, up to where the model's answer begins."""
        if self.info.template:
            inside = self._tokenize(you)
            if not inside:
                raise UsageError("no token of the vocabulary fits this text", "Say it otherwise.")
            return [*self.info.template.prefix, *inside, *self.info.template.suffix]
        if self.roles:
            me, other = self.roles
            gap = END_OF_SPEECH if before else ""
            said = f"{gap}{me}:\n{you.strip()}{END_OF_SPEECH}" if you.strip() else gap
            return self._tokenize(f"{said}{other}:\n")
        # What one says begins on a line of its own.
        line = before and you and not (before[-1].you + before[-1].answer).endswith("\n")
        return self._tokenize(f"\n{you}" if line else you)

    def _tokenize(self, text: str) -> list[int]:
        return self.model.tokenize(text).token_ids if text else []

    # --- Kept conversations

    def to_json(self) -> dict[str, Any]:
        """What a file keeps."""
        layout = self.info.layout_sha256
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": layout.hex() if layout else None,
            "roles": list(self.roles) if self.roles else None,
            "turns": [{"you": turn.you, "answer": turn.answer} for turn in self.turns],
        }

    def restore(self, value: Any) -> None:
        """Goes on with a kept conversation; what is wrong with it leaves this one as it is."""
        roles, turns = _parsed(value)
        if roles and self.info.template:
            raise UsageError(
                "the conversation has roles, and this model a template", "Use a plain model."
            )
        before = self.roles, self.turns
        self.roles, self.turns = roles, []
        try:
            for you, answer in turns:
                self._keep(you, answer, self._ids(you, self.turns), self._tokenize(answer))
        except BaseException:
            self.roles, self.turns = before
            raise


def _turns_outside(history: list[list[int]], cut: int) -> int:
    """How many turns are touched when the first `cut` ids are left out."""
    outside = 0
    for ids in history:
        if cut <= 0:
            break
        cut -= len(ids)
        outside += 1
    return outside


def _parsed(value: Any) -> tuple[tuple[str, str] | None, list[tuple[str, str]]]:
    match value:
        case {"format": str(name), "version": int(version), "roles": roles, "turns": list(turns)}:
            if name == FORMAT and version == VERSION:
                return _roles(roles), [_turn(one) for one in turns]
            if name == FORMAT:
                raise UsageError(
                    f"the conversation was kept in version {version} of the format",
                    "Bring icgpt up to date.",
                )
    raise _no_conversation()


def _roles(value: Any) -> tuple[str, str] | None:
    match value:
        case None:
            return None
        case [str(me), str(other)]:
            return me, other
    raise _no_conversation()


def _turn(value: Any) -> tuple[str, str]:
    match value:
        case {"you": str(you), "answer": str(answer)}:
            return you, answer
    raise _no_conversation()


def _no_conversation() -> UsageError:
    return UsageError("the file holds no conversation", "Name one that /save wrote.")

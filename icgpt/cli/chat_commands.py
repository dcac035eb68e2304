"""What begins with a slash in `icgpt chat`: options, keeping conversations, help."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from icgpt.chat import FORMAT, Conversation
from icgpt.cli.common import aside
from icgpt.errors import UsageError
from icgpt.files import write_atomically

MAX_FILE_BYTES: Final = 16 << 20
SETTABLE: Final = (
    *("max_new_tokens", "min_new_tokens", "temperature", "top_k", "top_p", "typical_p"),
    *("repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "seed"),
    *("stop", "context", "stats"),
)
HELP: Final = {
    "/set": "show the options",
    "/set OPTION VALUE": "change one; `default` takes a change back",
    "/retry": "ask the last thing again",
    "/clear": "begin a new conversation",
    "/save FILE": "keep the conversation",
    "/load FILE": "go on with a kept one",
    "/help": "this",
    "/exit": "leave, as Ctrl-D does",
}
FOOT: Final = "Ctrl-C ends an answer. A text that begins with a slash is written //so."


class Leave(Exception):  # noqa: N818 - nothing is wrong
    """The conversation is over."""


class Settings:
    """The options of the next answer; `/set` takes what the command line takes."""

    def __init__(self, ctx: click.Context, options: dict[str, Any], stats: bool) -> None:
        self.ctx = ctx
        self.values = {**options, "stats": stats}
        self._parameters = {one.name: one for one in ctx.command.params if one.name in SETTABLE}

    def options(self, stop: list[str] | None) -> dict[str, Any]:
        """What the canister is asked; `stop` is what ends an answer when nothing else was named."""
        values = {name: value for name, value in self.values.items() if name != "stats"}
        return {**values, "stop": values["stop"] or stop}

    @property
    def stats(self) -> bool:
        """Whether figures are told after each answer."""
        return bool(self.values["stats"])

    def change(self, name: str, words: list[str]) -> None:
        """Changes one option."""
        parameter = self._parameters.get(name.strip("-").replace("-", "_"))
        if parameter is None or parameter.name is None:
            raise UsageError(f"there is no option '{name}'", f"Options: {', '.join(SETTABLE)}")
        if words == ["default"]:
            value: Any = parameter.get_default(self.ctx, call=True)
        elif parameter.multiple:
            value = [word.replace("\\n", "\n") for word in words]
        else:
            value = " ".join(words)
        try:
            self.values[parameter.name] = parameter.process_value(self.ctx, value)
        except click.BadParameter as error:
            raise UsageError(
                f"{parameter.name}: {error.message}", "/set shows what it is."
            ) from error

    def lines(self) -> list[str]:
        """All of them, for people."""
        return [f"{name:<29} {_shown(self.values[name])}" for name in SETTABLE]


def _shown(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(repr(one) for one in value) if isinstance(value, list) else str(value)


def complete(line: str) -> list[str]:
    """What a begun line may become."""
    if line.startswith("/set "):
        return [f"/set {name} " for name in SETTABLE if name.startswith(line[5:])]
    names = dict.fromkeys(words.split()[0] for words in HELP)
    return [name for name in names if name.startswith(line)] if line.startswith("/") else []


def obey(line: str, conversation: Conversation, settings: Settings) -> str | None:
    """Does what a line says; a text that is to be asked, if there is one."""
    try:
        name, *words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"can't read that line: {error}", "Close the quotation.") from error
    if name == "/retry":
        if not conversation.turns:
            raise UsageError("nothing was asked yet", "Say something first.")
        return conversation.turns.pop().you
    actions: dict[str, Callable[[], None]] = {
        "/set": lambda: _set(settings, words),
        "/clear": lambda: _clear(conversation),
        "/save": lambda: save_file(conversation, _one(name, words)),
        "/load": lambda: load_file(conversation, _one(name, words)),
        "/help": _help,
        "/exit": _leave,
    }
    if name not in actions:
        raise UsageError(f"there is no {name}", "/help lists what there is.")
    actions[name]()
    return None


def _one(name: str, words: list[str]) -> str:
    if len(words) != 1:
        raise UsageError(f"{name} takes one file", f"Say: {name} FILE")
    return words[0]


def _set(settings: Settings, words: list[str]) -> None:
    if len(words) == 1:
        raise UsageError("a value is missing", f"Say: /set {words[0]} VALUE")
    if words:
        settings.change(words[0], words[1:])
    else:
        aside("\n".join(settings.lines()))


def _clear(conversation: Conversation) -> None:
    conversation.turns.clear()
    aside("A new conversation.")


def _help() -> None:
    aside("\n".join([*(f"{name:<18} {words}" for name, words in HELP.items()), FOOT]))


def _leave() -> None:
    raise Leave


def save_file(conversation: Conversation, name: str) -> None:
    """Keeps the conversation; a file that holds something else is not overwritten."""
    path = Path(name).expanduser()
    if path.exists() and not _is_ours(path):
        raise UsageError(f"{path} holds something else", "Name another file.")
    text = json.dumps(conversation.to_json(), ensure_ascii=False, indent=1)
    write_atomically(path, text.encode("utf-8", "surrogatepass") + b"\n", 0o600)
    aside(f"Kept in {path}, {_turns(conversation)}.")


def load_file(conversation: Conversation, name: str) -> None:
    """Goes on with a kept conversation."""
    path = Path(name).expanduser()
    conversation.restore(_read(path))
    aside(f"Going on with {path}, {_turns(conversation)}.")


def _turns(conversation: Conversation) -> str:
    count = len(conversation.turns)
    return "1 turn" if count == 1 else f"{count} turns"


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", "Name a kept file.") from error
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{path} is larger than a conversation may be (16 MiB)", "Name another.")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} holds no conversation", "Name a file of /save.") from error


def _is_ours(path: Path) -> bool:
    try:
        value = _read(path)
    except UsageError:
        return False
    return isinstance(value, dict) and value.get("format") == FORMAT

"""`icgpt chat`: a conversation in the terminal, or through a pipe."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from icgpt.cli.common import (
    F,
    aside,
    calling_options,
    error_text,
    model_text,
    opened,
    show,
    tell_price,
    writer,
)
from icgpt.cli.completing import FILES
from icgpt.cli.drawing import drawing_options, stop_option
from icgpt.cli.help import Command

if TYPE_CHECKING:
    from icgpt.chat import Conversation
    from icgpt.cli.chat_commands import Settings
    from icgpt.cli.proofs import Proof
    from icgpt.cli.writing import Written
    from icgpt.results import Completion

TOKENS: Final = 200
TEMPERATURE: Final = 0.8
_CLEAR_LINE: Final = "\r\x1b[K"
_ENDED: Final = "(ended here)"


def _roles(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    if len(names) != 2 or not all(names):
        raise click.BadParameter("give two names, such as ROMEO,JULIET.", ctx, param)
    return names[0], names[1]


def _next_file(folder: Path) -> Path:
    """A name that no answer has yet."""
    numbers = itertools.count(1)
    names = (folder / f"answer-{number}.json" for number in numbers)
    return next(path for path in names if not path.exists())


def chat_options(function: F) -> F:
    """What `/set` can change too."""
    for option in (
        click.option(
            "--context",
            type=click.Choice(["stop", "slide"]),
            help="What to do when the context is full; the model's own way when left out.",
        ),
        stop_option,
        drawing_options(TOKENS, TEMPERATURE, whole=False),
    ):
        function = option(function)
    return function


@click.command(
    cls=Command,
    examples=[
        "icgpt chat",
        "icgpt chat --roles ROMEO,JULIET --seed 7",
        "icgpt chat -n 100 -t 0.5 --load talk.json",
        "icgpt chat --receipts proven",
        'echo "to be or not" | icgpt chat --json',
    ],
)
@chat_options
@click.option(
    "--roles",
    metavar="YOU,MODEL",
    callback=_roles,
    help="Talk as in a play: your name, and the model's.",
)
@click.option("--load", metavar="FILE", help="Go on with what /save wrote.", shell_complete=FILES)
@click.option(
    "--receipts",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep in DIR, a file an answer, what proves the answers: see `icgpt verify`.",
)
@calling_options
@click.pass_context
def chat(
    ctx: click.Context,
    /,
    roles: tuple[str, str] | None,
    load: str | None,
    receipts: Path | None,
    stats: bool,
    canister: str,
    network: str | None,
    identity: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Talk with the model, turn by turn.

    A model with a template is asked by it; any other goes on with the transcript, and an empty
    line lets it go on by itself. Ctrl-C ends an answer, Ctrl-D the conversation; /help tells more.
    Piped lines are answered one by one. With --json each answer is a line of JSON. Of a fleet one
    canister answers as long as it can, since it keeps what it has computed of the conversation.
    """
    from icgpt.chat import Conversation
    from icgpt.cli import lines
    from icgpt.cli.chat_commands import Settings, complete, load_file
    from icgpt.identity import config_dir

    with opened(network, identity) as place:
        model = writer(place, canister, stay=True)
        conversation = Conversation(model, roles)
        settings = Settings(ctx, options, stats)
        if load is not None:
            load_file(conversation, load)
        if receipts is not None:
            receipts.mkdir(parents=True, exist_ok=True)
        person = lines.interactive() and not as_json
        if person:
            _welcome(conversation, canister)
        tell_price(place[1], model, conversation.n_ctx // 2, options["max_new_tokens"])
        with lines.editing(config_dir() / "chat_history", complete):
            _Talk(conversation, settings, person, as_json, receipts).go()


def _welcome(conversation: Conversation, canister: str) -> None:
    info = conversation.info
    shape = info.architecture
    if shape is None:
        return
    ways = "slides" if info.context == "slide" else "stops"
    aside(f"{model_text(info, shape)}, context {shape.n_ctx:,} ({ways}), canister {canister}")
    if conversation.roles:
        me, other = conversation.roles
        what = f"You are {me}, the model is {other}."
    elif info.template:
        what = "It answers what you ask."
    else:
        what = "It goes on from what you write; an empty line lets it go on by itself."
    aside(what)
    aside("/help lists commands, Ctrl-D leaves.\n")


class _Talk:
    """One conversation and where it is shown."""

    def __init__(
        self,
        conversation: Conversation,
        settings: Settings,
        person: bool,
        as_json: bool,
        receipts: Path | None,
    ) -> None:
        self.conversation = conversation
        self.settings = settings
        self.person = person
        self.as_json = as_json
        self.receipts = receipts
        self.left_out = 0

    def go(self) -> None:
        """Takes turns until there are no more lines."""
        from icgpt.cli.chat_commands import Leave

        try:
            while (line := self._line()) is not None:
                self._turn(line)
        except Leave:
            return
        if self.person:
            click.echo()

    def _line(self) -> str | None:
        from icgpt.cli.lines import read_line

        while True:
            try:
                return read_line()
            except KeyboardInterrupt:
                if not self.person:
                    raise
                aside("\nCtrl-D or /exit leaves.")

    def _turn(self, line: str) -> None:
        from icgpt.cli.chat_commands import obey
        from icgpt.errors import IcgptError

        before = list(self.conversation.turns)
        try:
            text: str | None = line
            if line.startswith("//"):
                text = line[1:]
            elif line.startswith("/"):
                text = obey(line, self.conversation, self.settings)
            if text is not None and (text.strip() or self._may_go_on()):
                self._answer(text)
        except (IcgptError, OSError, click.UsageError) as error:
            # Somebody at a terminal can mend it and go on; a script must hear of it.
            if not self.person or isinstance(error, BrokenPipeError):
                raise
            self.conversation.turns[:] = before
            self._tell_error(error)
        except KeyboardInterrupt:  # before the job began, or once more while it was ended
            if not self.person:
                raise
            self.conversation.turns[:] = before
            aside(f"{_ENDED}\n")

    def _tell_error(self, error: Exception) -> None:
        words = error.format_message() if isinstance(error, click.UsageError) else str(error)
        aside(error_text(words, getattr(error, "hint", None)), colour="red")

    def _may_go_on(self) -> bool:
        """An empty line means something where the model goes on by itself."""
        return bool(self.conversation.turns) and self.conversation.info.template is None

    def _answer(self, text: str) -> None:
        from icgpt.cli.generate import statistics, statistics_line
        from icgpt.cli.proofs import Proof
        from icgpt.cli.writing import write

        talk = self.conversation
        values = self.settings.options(talk.stop())
        request = talk.request(text, values["max_new_tokens"], values["context"])
        self._tell_what_is_left_out(request.left_out)
        proof = None if self.receipts is None else Proof(talk.model, _next_file(self.receipts))
        begin = None if proof is None else proof.begin
        with self._screen() as put:
            done = write(talk.model, request.token_ids, {**values, "template": False}, put, begin)
        turn = talk.add(request, done.completion)
        sent = 4 * len(request.token_ids)
        figures = statistics(done.completion, done.seconds, sent, first_seconds=done.first_seconds)
        if self.as_json:
            click.echo(json.dumps({"you": turn.you, **done.completion.to_json(), "stats": figures}))
        self._tell_how_it_ended(done)
        if proof is not None and not done.interrupted:
            self._keep(proof, done.completion)
        if self.settings.stats:
            aside(statistics_line(figures))
        if self.person:
            click.echo()
        if done.interrupted and not self.person:
            raise KeyboardInterrupt

    def _keep(self, proof: Proof, done: Completion) -> None:
        from icgpt.errors import IcgptError

        try:
            proof.keep(done)
        except IcgptError as error:
            # The answer is here all the same, and the conversation goes on with it.
            if not self.person:
                raise
            self._tell_error(error)

    @contextlib.contextmanager
    def _screen(self) -> Iterator[Callable[[str], None]]:
        """Where the pieces go: to the reader as they come, with a sign that something is coming."""
        if self.as_json:
            yield lambda piece: None
            return
        waiting, ended = self.person, True

        def put(piece: str) -> None:
            nonlocal waiting, ended
            if waiting:
                click.echo(_CLEAR_LINE, nl=False)
            waiting, ended = False, piece.endswith("\n")
            show(piece, newline=False)

        if waiting:
            click.echo(click.style("…", dim=True), nl=False)
        try:
            yield put
        finally:
            if waiting:
                click.echo(_CLEAR_LINE, nl=False)
            elif not ended:
                click.echo()

    def _tell_what_is_left_out(self, turns: int) -> None:
        if turns > self.left_out:
            count = "turn is" if turns == 1 else f"{turns} turns are"
            aside(f"The context is full: the oldest {count} no longer in it.")
        self.left_out = turns

    def _tell_how_it_ended(self, done: Written) -> None:
        finish = done.completion.finish
        if done.interrupted:
            aside(_ENDED)
        elif finish == "context":
            aside("(the context is full)")
        elif finish == "length" and self.conversation.info.template is not None:
            most = self.settings.values["max_new_tokens"]
            aside(f"(cut after {most} tokens; /set max_new_tokens N allows more)")

"""A conversation on a terminal: questions, answers, the commands between them; what was said outlives errors and servers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pensieve.cli.chat import slash_commands, transcript
from pensieve.cli.chat.context_usage import ContextUsage, without_oldest
from pensieve.cli.chat.receive import Answer
from pensieve.cli.chat.server_connection import ConnectedModel, ServerConnection
from pensieve.cli.chat.view import View
from pensieve.cli.client.messages import Call, Turn
from pensieve.cli.ui import output
from pensieve.errors import PensieveError, PromptTooLongError

if TYPE_CHECKING:
    from pensieve.cli.chat.editor import Editor

PROMPT = "> "
INTERRUPTED = 130
# A question asked again at 0 would be answered in the same words.
RETRY_TEMPERATURE = 0.8


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How to ask, the same for every question. view: makes what shows one answer. has_figures: show them after each.

    agrees: asks the person something that is yes or no.
    """

    max_tokens: int
    temperature: float | None
    hides_thinking: bool
    has_figures: bool
    view: Callable[[], View]
    agrees: Callable[[str], bool] = output.agrees

    def call(self, peer: ConnectedModel, turns: tuple[Turn, ...], system: str) -> Call:
        """The call that asks `peer` for an answer to `turns`. A model that can think is asked to."""
        shown = "hidden" if self.hides_thinking else "shown"
        return Call(
            model=peer.model,
            turns=turns,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            system=system,
            thinking=shown if peer.served.thinks else "none",
        )


class Conversation:
    """Owns the turns, the instructions and what was asked last."""

    def __init__(
        self, manner: ChatOptions, link: ServerConnection, editor: "Editor", system: str
    ) -> None:
        self._manner = manner
        self._link = link
        self._editor = editor
        self._system = system
        self._turns: tuple[Turn, ...] = ()
        self._asked = ""
        self._begun = ""
        self._meter = ContextUsage()
        self._commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: output.note(slash_commands.help_text()),
            "clear": self._clear,
            "model": self._show_or_choose_model,
            "system": self._show_or_set_system,
            "save": self._save,
            "load": self._load,
            "retry": self._retry,
            "undo": self._undo,
            "stats": lambda _: output.note(self._meter.told()),
            "multi": self._switch_multi,
        }

    def run(self) -> int:
        """Until Ctrl-D, /exit, or Ctrl-C twice at an empty prompt; the exit code. Raises where no server is to be had."""
        peer = self._link.peer()
        output.hint(
            f"{peer.model}. /help shows the commands, Ctrl-C ends an answer, Ctrl-D leaves."
        )
        was_interrupted = False
        while True:
            try:
                line = self._typed()
            except EOFError:
                return 0
            except KeyboardInterrupt:
                if was_interrupted:
                    return INTERRUPTED
                output.hint("Ctrl-D or Ctrl-C again leaves.")
                was_interrupted = True
                continue
            was_interrupted = False
            meant = slash_commands.read(line)
            if meant == slash_commands.Command("exit", ""):
                return 0
            self._do(meant)

    def _typed(self) -> str:
        begun, self._begun = self._begun, ""
        return self._editor.ask(PROMPT, begun, str(self._meter))

    def _do(
        self, meant: slash_commands.Message | slash_commands.Command | slash_commands.Unknown
    ) -> None:
        try:
            match meant:
                case slash_commands.Message(text):
                    if text.strip():
                        self._exchange(text, self._manner)
                case slash_commands.Command(name, argument):
                    self._commands[name](argument)
                case slash_commands.Unknown(name, suggestion):
                    maybe = f"Did you mean /{suggestion}?" if suggestion else "/help shows them."
                    output.failure(f"There is no command /{name}. {maybe}", None)
        except KeyboardInterrupt:
            output.hint("(ended)")
        except PensieveError as error:
            output.failure(error.message, error.hint)

    def _exchange(self, question: str, manner: ChatOptions) -> None:
        """Ask; what is answered joins the conversation, also where it is broken off. Raises as `Completion.receive`."""
        self._asked = question
        peer = self._link.peer()
        asked = (*self._turns, Turn("user", question))
        try:
            self._receive(peer, manner.call(peer, asked, self._system))
        except PromptTooLongError as error:
            self._make_room(peer, manner, asked, error)

    def _receive(self, peer: ConnectedModel, call: Call) -> None:
        answer = Answer()
        try:
            answer.receive(peer.server, call, self._manner.view())
        finally:
            if answer.turn.text.strip():
                self._turns = (*call.turns, answer.turn)
        self._meter.add(answer, peer.served.health.context_tokens)
        conclude(answer, self._manner)

    def _make_room(
        self,
        peer: ConnectedModel,
        manner: ChatOptions,
        asked: tuple[Turn, ...],
        error: PromptTooLongError,
    ) -> None:
        """Leave out the oldest exchanges where the person agrees, and ask again. Raises where that is no help."""
        if len(asked) < 3:
            error.message = (
                f"That is {error.prompt_tokens} tokens, and the model reads {error.context_tokens}."
            )
            raise error
        output.warning(
            f"the conversation has grown to {error.prompt_tokens} tokens, and the model reads"
            f" {error.context_tokens}. /clear begins anew."
        )
        if not self._manner.agrees("Leave out the oldest questions and answers, and ask again?"):
            return
        call = without_oldest(peer.server, manner.call(peer, asked, self._system), error)
        left_out = (len(asked) - len(call.turns)) // 2
        output.hint(
            f"Left out: the oldest {left_out} of {len(asked) // 2} questions, and their answers."
        )
        self._turns = call.turns[:-1]
        self._receive(peer, call)

    # The commands

    def _clear(self, _: str) -> None:
        self._turns, self._asked = (), ""
        self._meter.clear()
        output.hint("The conversation begins anew.")

    def _show_or_choose_model(self, name: str) -> None:
        peer = self._link.choose(name) if name else self._link.peer()
        context_tokens = peer.served.health.context_tokens
        output.note(f"{peer.model}, {context_tokens} tokens of context, at {peer.server.base_url}")

    def _show_or_set_system(self, text: str) -> None:
        if text:
            self._system = "" if text == "off" else text
        output.note(f"Instructions: {self._system}" if self._system else "No instructions.")

    def _save(self, name: str) -> None:
        if not name:
            output.failure("/save takes the name of a file.", None)
            return
        path = Path(name).expanduser()
        transcript.save(
            path, transcript.Transcript(self._turns, self._system, self._link.peer().model)
        )
        output.hint(f"Kept: {path}")

    def _load(self, name: str) -> None:
        if not name:
            output.failure("/load takes the name of a file.", None)
            return
        kept = transcript.load(Path(name).expanduser())
        self._turns, self._system, self._asked = kept.turns, kept.system, ""
        output.hint(f"Loaded: {len(kept.turns) // 2} questions and their answers.")

    def _retry(self, _: str) -> None:
        if not self._asked:
            output.failure("Nothing was asked yet.", None)
            return
        if self._turns and self._turns[-2].text == self._asked:
            self._turns = self._turns[:-2]
        usual = self._manner.temperature
        if usual is None:
            usual = self._link.peer().served.temperature
        warmer = max(usual, RETRY_TEMPERATURE)
        output.hint(f"Asked again, at temperature {warmer}: {_in_short(self._asked)}")
        self._exchange(self._asked, replace(self._manner, temperature=warmer))

    def _undo(self, _: str) -> None:
        if not self._turns:
            output.failure("There is nothing to take back.", None)
            return
        self._begun = self._turns[-2].text
        self._turns = self._turns[:-2]
        self._asked = self._turns[-2].text if self._turns else ""
        output.hint("Taken back, with its answer. The question can be changed:")

    def _switch_multi(self, _: str) -> None:
        self._editor.is_multi = not self._editor.is_multi
        keys = (
            "Alt-Enter sends"
            if self._editor.is_multi
            else "Enter sends, Alt-Enter begins a new line"
        )
        output.hint(f"{keys}.")


def conclude(answer: Answer, manner: ChatOptions) -> None:
    """What is to be known about an answer beside its text."""
    reason = answer.ended.stop_reason if answer.ended else ""
    if reason == "max_tokens":
        output.hint(f"The answer stops at --max-tokens {manner.max_tokens}.")
    if reason == "model_context_window_exceeded":
        output.warning("the model's context is full, so the answer stops here.")
    if manner.has_figures:
        output.hint(str(answer.figures))


def _in_short(text: str) -> str:
    line = text.strip().splitlines()[0]
    return line if len(line) <= 50 else f"{line[:49]}…"

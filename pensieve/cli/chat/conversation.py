"""The interactive loop of `pensieve chat`; it survives errors and restarts of the server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pensieve.api.messages.content_blocks import ImageBlock
from pensieve.cli.chat import slash_commands, transcript
from pensieve.cli.chat.context_usage import (
    ContextUsage,
    TooLongError,
    explain,
    without_oldest,
)
from pensieve.cli.chat.images import dragged, read_image
from pensieve.cli.chat.receive import Answer
from pensieve.cli.chat.server_connection import ConnectedModel, ServerConnection
from pensieve.cli.chat.view import View
from pensieve.cli.client.messages import Call, Turn
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import counted
from pensieve.errors import PensieveError, PromptTooLongError, PromptUnprocessableError

if TYPE_CHECKING:
    from pensieve.cli.chat.editor import Editor

PROMPT = "> "
INTERRUPTED = 130
# At temperature 0 a retry would give the same answer.
RETRY_TEMPERATURE = 0.8


def _confirm_replacement(question: str) -> bool:
    return output.confirm(question, command="/save ANOTHER-FILE")


# The same for every question of a conversation.
@dataclass(frozen=True, slots=True)
class ChatOptions:
    max_tokens: int
    temperature: float | None
    hides_thinking: bool
    shows_timing: bool  # after each answer
    view: Callable[[], View]  # creates the view of one answer
    ask_yes_no: Callable[[str], bool] = output.ask_yes_no
    confirm: Callable[[str], bool] = _confirm_replacement

    def call(self, connected: ConnectedModel, turns: tuple[Turn, ...], system: str) -> Call:
        """Return the request for the next answer. A model that can think is asked to."""
        display = "hidden" if self.hides_thinking else "shown"
        return Call(
            model=connected.model,
            turns=turns,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            system=system,
            thinking=display if connected.info.thinks else "none",
        )


class Conversation:
    """Owns the turns, the instructions and the last question."""

    def __init__(
        self,
        options: ChatOptions,
        connection: ServerConnection,
        editor: "Editor",
        system: str,
        images: Sequence[ImageBlock] = (),
    ) -> None:
        """images: of the first question."""
        self._options = options
        self._connection = connection
        self._editor = editor
        self._system = system
        self._turns: tuple[Turn, ...] = ()
        self._last_question = ""
        self._last_images: tuple[ImageBlock, ...] = ()
        self._images = tuple(images)
        self._prefill = ""
        self._file: Path | None = None  # that this conversation was saved to or loaded from
        self._usage = ContextUsage()
        self._commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: output.note(slash_commands.help_text()),
            "clear": self._clear,
            "model": self._show_or_choose_model,
            "system": self._show_or_set_system,
            "save": self._save,
            "load": self._load,
            "retry": self._retry,
            "undo": self._undo,
            "stats": lambda _: output.note(self._usage.summary()),
            "multi": self._switch_multi,
        }

    def run(self) -> int:
        """Run until Ctrl-D, /exit, or Ctrl-C twice at an empty prompt; return the exit code.

        Raises if no server can be reached at the start.
        """
        connected = self._connection.connect()
        output.hint(
            f"{connected.model}. /help lists the commands, Ctrl-C stops an answer, Ctrl-D quits."
        )
        was_interrupted = False
        while True:
            try:
                line = self._read_line()
            except EOFError:
                return 0
            except KeyboardInterrupt:
                if was_interrupted:
                    return INTERRUPTED
                output.hint("Ctrl-D or Ctrl-C again quits.")
                was_interrupted = True
                continue
            was_interrupted = False
            text, paths = dragged(line)
            parsed = slash_commands.Message(text) if paths else slash_commands.read(line)
            if paths and not self._add_images(paths):
                continue
            if parsed == slash_commands.Command("exit", ""):
                return 0
            self._execute(parsed)

    def _read_line(self) -> str:
        prefill, self._prefill = self._prefill, ""
        return self._editor.ask(PROMPT, prefill, str(self._usage))

    def _execute(
        self, parsed: slash_commands.Message | slash_commands.Command | slash_commands.Unknown
    ) -> None:
        try:
            match parsed:
                case slash_commands.Message(text):
                    if text.strip():
                        images, self._images = self._images, ()
                        self._ask(text, self._options, images)
                case slash_commands.Command(name, argument):
                    self._commands[name](argument)
                case slash_commands.Unknown(name, suggestion):
                    advice = f"Did you mean /{suggestion}?" if suggestion else "/help lists them."
                    output.failure(f"There is no command /{name}. {advice}", None)
        except KeyboardInterrupt:
            output.hint("(stopped)")
        except PensieveError as error:
            output.failure(error.message, error.hint)

    def _add_images(self, paths: Sequence[Path]) -> bool:
        """Add pictures to the next question. Return whether they can be read."""
        try:
            self._images += tuple(map(read_image, paths))
        except PensieveError as error:
            output.failure(error.message, error.hint)
            return False
        output.hint(f"{counted(len(self._images), 'picture')} with the question.")
        return True

    def _ask(
        self, question: str, options: ChatOptions, images: tuple[ImageBlock, ...] = ()
    ) -> None:
        """Ask, and keep the answer, even a partial one. Raises as `Answer.receive`."""
        self._last_question, self._last_images = question, images
        connected = self._connection.connect()
        turns = (*self._turns, Turn("user", question, images=images))
        try:
            self._receive(connected, options.call(connected, turns, self._system))
        except (PromptTooLongError, PromptUnprocessableError) as error:
            self._trim(connected, options, turns, error)

    def _receive(self, connected: ConnectedModel, call: Call) -> None:
        answer = Answer()
        try:
            answer.receive(connected.server, call, self._options.view())
        finally:
            if answer.turn.text.strip():
                self._turns = (*call.turns, answer.turn)
        self._usage.add(answer, connected.info.health.context_tokens)
        conclude(answer, self._options)

    def _trim(
        self,
        connected: ConnectedModel,
        options: ChatOptions,
        turns: tuple[Turn, ...],
        error: TooLongError,
    ) -> None:
        """Drop the oldest exchanges if the user agrees, and ask again. Raises if it cannot help."""
        if len(turns) < 3:
            raise explain(error, self._last_question)
        output.warning(f"{_reason(error)} /clear starts over.")
        if not self._options.ask_yes_no("Drop the oldest questions and answers, and ask again?"):
            return
        call = without_oldest(connected.server, options.call(connected, turns, self._system), error)
        dropped = (len(turns) - len(call.turns)) // 2
        output.hint(f"Dropped the oldest {dropped} of {_with_answers(len(turns) // 2)}.")
        self._turns = call.turns[:-1]
        self._receive(connected, call)

    # The commands

    def _clear(self, _: str) -> None:
        self._turns, self._last_question = (), ""
        self._usage.clear()
        output.hint("The conversation starts over.")

    def _show_or_choose_model(self, name: str) -> None:
        connected = self._connection.choose(name) if name else self._connection.connect()
        context_tokens = connected.info.health.context_tokens
        output.note(
            f"{connected.model}, {context_tokens} tokens of context, at {connected.server.base_url}"
        )

    def _show_or_set_system(self, text: str) -> None:
        if text:
            self._system = "" if text == "off" else text
        output.note(f"Instructions: {self._system}" if self._system else "No instructions.")

    def _save(self, name: str) -> None:
        if not name:
            output.failure("/save takes the name of a file.", None)
            return
        path = Path(name).expanduser()
        if path.exists() and path != self._file and transcript.is_transcript(path):
            question = f"{path} holds another conversation. Replace it?"
            if not self._options.confirm(question):
                output.hint("Not saved.")
                return
        transcript.save(
            path, transcript.Transcript(self._turns, self._system, self._connection.connect().model)
        )
        self._file = path
        output.hint(f"Saved: {path}")

    def _load(self, name: str) -> None:
        if not name:
            output.failure("/load takes the name of a file.", None)
            return
        path = Path(name).expanduser()
        loaded = transcript.load(path)
        self._turns, self._system, self._last_question = loaded.turns, loaded.system, ""
        self._file = path
        output.hint(f"Loaded: {_with_answers(len(loaded.turns) // 2)}.")

    def _retry(self, _: str) -> None:
        if not self._last_question:
            output.failure("There is no question yet.", None)
            return
        if self._turns and self._turns[-2].text == self._last_question:
            self._turns = self._turns[:-2]
        default = self._options.temperature
        if default is None:
            default = self._connection.connect().info.temperature
        retry_temperature = max(default, RETRY_TEMPERATURE)
        output.hint(
            f"Asking again at temperature {retry_temperature}: {_abbreviated(self._last_question)}"
        )
        options = replace(self._options, temperature=retry_temperature)
        self._ask(self._last_question, options, self._last_images)

    def _undo(self, _: str) -> None:
        if not self._turns:
            output.failure("There is nothing to undo.", None)
            return
        self._prefill, self._images = self._turns[-2].text, self._turns[-2].images
        self._turns = self._turns[:-2]
        last = self._turns[-2] if self._turns else Turn("user", "")
        self._last_question, self._last_images = last.text, last.images
        output.hint("Removed the question and its answer. Edit the question:")

    def _switch_multi(self, _: str) -> None:
        self._editor.is_multi = not self._editor.is_multi
        keys = (
            "Alt-Enter sends, Enter starts a new line"
            if self._editor.is_multi
            else "Enter sends, Alt-Enter starts a new line"
        )
        output.hint(f"{keys}.")


def conclude(answer: Answer, options: ChatOptions) -> None:
    """Print why the answer stopped early, and its timing."""
    reason = answer.end.stop_reason if answer.end else ""
    if reason == "max_tokens":
        output.hint(f"The answer reached --max-tokens {options.max_tokens}.")
    if reason == "model_context_window_exceeded":
        output.warning("the answer stopped because the model's context is full.")
    if options.shows_timing:
        output.hint(str(answer.timing))


def _reason(error: TooLongError) -> str:
    if isinstance(error, PromptTooLongError):
        return (
            f"the conversation has {error.prompt_tokens} tokens, and the model's context is"
            f" {error.context_tokens}."
        )
    return (
        f"the engine ended {error.deaths} times at the first {error.prompt_tokens} tokens of this"
        " conversation, so it is too long to be processed here."
    )


def _with_answers(questions: int) -> str:
    answers = "its answer" if questions == 1 else "their answers"
    return f"{counted(questions, 'question')} and {answers}"


def _abbreviated(text: str) -> str:
    line = text.strip().splitlines()[0]
    return line if len(line) <= 50 else f"{line[:49]}…"

"""The input line of a chat, with several lines and a history. Wraps prompt_toolkit.

Enter sends and Alt-Enter starts a new line; multi mode swaps them. Within three quotes Enter never
sends.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, create_output
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import is_dumb_terminal

from pensieve.cli.chat.input_history import FileHistory
from pensieve.cli.chat.slash_commands import COMMANDS, is_open
from pensieve.cli.ui import output

CONTINUATION_PROMPT = "  "


class Editor(Protocol):
    is_multi: bool

    def ask(self, prompt: str, prefill: str = "", status: str = "") -> str:
        """Return the typed text.

        prefill: text to edit. status: shown at the right. Raises EOFError on Ctrl-D, and
        KeyboardInterrupt.
        """
        ...


class TerminalEditor:
    """Owns the prompt session. history: the file of typed lines, None for none."""

    def __init__(self, history: Path | None, stream: TextIO, *, is_coloured: bool) -> None:
        self.is_multi = False
        self._session: PromptSession[str] = PromptSession(
            history=FileHistory(history) if history else InMemoryHistory(),
            input=create_input(),
            output=create_output(stdout=stream),
            multiline=True,
            key_bindings=self._keys(),
            completer=SlashCompleter(),
            complete_while_typing=False,
            tempfile_suffix=".md",
            prompt_continuation=CONTINUATION_PROMPT,
            color_depth=None if is_coloured else ColorDepth.DEPTH_1_BIT,
            enable_suspend=True,
            style=Style.from_dict({"rprompt": "dim"}),
        )

    def ask(self, prompt: str, prefill: str = "", status: str = "") -> str:
        return self._session.prompt(prompt, default=prefill, rprompt=status)

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        is_typing = Condition(lambda: bool(get_app().current_buffer.text))

        @keys.add("enter")
        def _(event: KeyPressEvent) -> None:
            if self.is_multi or is_open(event.current_buffer.text):
                event.current_buffer.newline(copy_margin=False)
            else:
                event.current_buffer.validate_and_handle()

        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            if self.is_multi:
                event.current_buffer.validate_and_handle()
            else:
                event.current_buffer.newline(copy_margin=False)

        @keys.add("c-g")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.open_in_editor()

        @keys.add("c-c", filter=is_typing)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.reset()

        return keys


class PlainEditor:
    """For a terminal without escape sequences: plain lines, more of them within three quotes."""

    def __init__(self) -> None:
        self.is_multi = False

    def ask(self, prompt: str, prefill: str = "", status: str = "") -> str:
        del status
        if prefill:
            output.note(prefill)
        text = output.ask(prompt)
        while is_open(text):
            text += "\n" + output.ask(CONTINUATION_PROMPT)
        return text


def editor_for(history: Path | None) -> Editor:
    if is_dumb_terminal():
        return PlainEditor()
    return TerminalEditor(history, output.prompt_stream(), is_coloured=output.can_style())


class SlashCompleter(Completer):
    """Completes the names of commands, and of files for /save and /load."""

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        text = document.text_before_cursor
        name, has_argument, argument = text.removeprefix("/").partition(" ")
        if not text.startswith("/"):
            return
        if not has_argument:
            yield from (Completion(f"/{c}", -len(text)) for c in COMMANDS if c.startswith(name))
        elif name in {"save", "load"}:
            yield from PathCompleter(expanduser=True).get_completions(
                Document(argument), complete_event
            )

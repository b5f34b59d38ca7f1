"""Parses a typed line of a chat: a message or a slash command. Pure."""

import difflib
from dataclasses import dataclass

# Name: argument, description.
COMMANDS = {
    "help": ("", "show this help"),
    "clear": ("", "start over, with the same instructions"),
    "model": ("[NAME]", "show or require a model"),
    "system": ("[TEXT | off]", "show, set or remove the instructions"),
    "save": ("FILE", "save the conversation"),
    "load": ("FILE", "load a saved conversation"),
    "retry": ("", "ask the last question again at a higher temperature"),
    "undo": ("", "remove the last question and its answer"),
    "stats": ("", "show tokens, speed and context used"),
    "multi": ("", "swap the keys that send and that start a line"),
    "exit": ("", "quit"),
}
ALIASES = {"quit": "exit", "bye": "exit", "?": "help"}
KEYS = """\
  \"\"\"        starts and ends a text of several lines
  //         sends a text that begins with /
  Alt-Enter  starts a new line
  a picture  dragged into the line is shown to the model
  Ctrl-G     opens $EDITOR
  Ctrl-C     stops the answer, Ctrl-D quits
A line that begins with a space is not saved in the history."""
QUOTES = '"""'


@dataclass(frozen=True, slots=True)
class Message:
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    argument: str


@dataclass(frozen=True, slots=True)
class Unknown:
    name: str
    suggestion: str  # the closest command, or empty


def read(line: str) -> Message | Command | Unknown:
    """Parse `line`. `//` escapes a message that begins with a slash."""
    if is_open(line) or is_quoted(line):
        return Message(line.strip().removeprefix(QUOTES).removesuffix(QUOTES).strip("\n"))
    text = line.strip()
    if text.startswith("//"):
        return Message(text[1:])
    if not text.startswith("/"):
        return Message(text)
    name, _, argument = text[1:].partition(" ")
    name = ALIASES.get(name, name)
    if name in COMMANDS:
        return Command(name, argument.strip())
    matches = difflib.get_close_matches(name, COMMANDS, n=1)
    return Unknown(name, matches[0] if matches else "")


def is_open(text: str) -> bool:
    """Return whether three quotes are open at the end."""
    stripped = text.strip()
    return stripped.startswith(QUOTES) and not is_quoted(text)


def is_quoted(text: str) -> bool:
    """Return whether the whole text is within three quotes."""
    stripped = text.strip()
    return (
        stripped.startswith(QUOTES)
        and stripped.endswith(QUOTES)
        and len(stripped) >= 2 * len(QUOTES)
    )


def help_text() -> str:
    rows = [
        (f"/{name} {argument}".rstrip(), description)
        for name, (argument, description) in COMMANDS.items()
    ]
    width = max(len(label) for label, _ in rows)
    return "\n".join(
        [*(f"  {label:<{width}}  {description}" for label, description in rows), "", KEYS]
    )

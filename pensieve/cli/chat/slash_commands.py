"""What a typed line means: something to say, or one of the conversation's own commands. Pure."""

import difflib
from dataclasses import dataclass

# Name: what it takes, what it does.
COMMANDS = {
    "help": ("", "show this"),
    "clear": ("", "begin anew; the instructions stay"),
    "model": ("[NAME]", "show the model, or ask for another"),
    "system": ("[TEXT | off]", "show, set or drop the instructions"),
    "save": ("FILE", "keep the conversation"),
    "load": ("FILE", "go on with a kept one"),
    "retry": ("", "ask the last question again, more freely"),
    "undo": ("", "take back the last question and its answer"),
    "stats": ("", "tokens, speed and context so far"),
    "multi": ("", "swap the keys that send and that begin a line"),
    "exit": ("", "leave"),
}
ALIASES = {"quit": "exit", "bye": "exit", "?": "help"}
KEYS = """\
  \"\"\"        begins and ends several lines
  //         says what begins with /
  Alt-Enter  begins a new line
  Ctrl-G     opens $EDITOR
  Ctrl-C     ends the answer, Ctrl-D leaves
A space in front keeps a line out of the history."""
QUOTES = '"""'


@dataclass(frozen=True, slots=True)
class Message:
    """For the model."""

    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """For the conversation itself."""

    name: str
    argument: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """No command. suggestion: the one that was probably meant, or empty."""

    name: str
    suggestion: str


def read(line: str) -> Message | Command | Unknown:
    """What `line` means. `//` stands for a `/` that begins no command."""
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
    likely = difflib.get_close_matches(name, COMMANDS, n=1)
    return Unknown(name, likely[0] if likely else "")


def is_open(text: str) -> bool:
    """Whether three quotes were begun and not ended."""
    words = text.strip()
    return words.startswith(QUOTES) and not is_quoted(text)


def is_quoted(text: str) -> bool:
    """Whether the whole text stands between three quotes."""
    words = text.strip()
    return words.startswith(QUOTES) and words.endswith(QUOTES) and len(words) >= 2 * len(QUOTES)


def help_text() -> str:
    """The commands and the keys."""
    rows = [(f"/{name} {takes}".rstrip(), does) for name, (takes, does) in COMMANDS.items()]
    width = max(len(label) for label, _ in rows)
    return "\n".join([*(f"  {label:<{width}}  {does}" for label, does in rows), "", KEYS])

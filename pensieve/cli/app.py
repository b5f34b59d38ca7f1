"""The command line: names the commands, and turns whatever happens into a message and an exit code.

The one place where an error becomes words on the terminal. A traceback is shown for PENSIEVE_DEBUG=1 alone.
A command's module is loaded when it is called, and the parser (cyclopts) when there is something to parse.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, TypeGuard

from pensieve import __version__
from pensieve.cli.ui import output
from pensieve.cli.ui.help import TOPICS, HelpLayout, columns
from pensieve.errors import PensieveError, UsageError
from pensieve.settings.resolve import child_environment, is_debug_asked, variables_set
from pensieve.settings.spec import shortened

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

INTERRUPTED = 130
BROKEN_PIPE = 141

HELP = """\
A local model on your own Mac that speaks the Anthropic API.

For example:
  pensieve start                         # first time: fetches the model
  pensieve chat "Why is the sky blue?"
  pensieve claude                        # Claude Code on the local model
  pensieve status
  pensieve stop
"""

# Each command with the first line of its help; PACKAGES says where its function is.
COMMANDS = {
    "start": "Start the server in the background and wait until it answers.",
    "stop": "Stop the server; open answers may finish first.",
    "restart": "Stop the server and start it again; where none runs, start one.",
    "status": "Show whether the server runs, where, and with which model.",
    "logs": "Print the last lines of the server's log.",
    "env": "Print the variables that point Claude Code and other Anthropic clients here.",
    "claude": "Run Claude Code on the local model; the server is started if need be.",
    "chat": "Ask the model, or converse with it.",
    "models": "List the models worth running, and those that are on this machine.",
    "pull": "Fetch a model; or check one that is here, and fetch anew what is damaged.",
    "use": "Have a model served from the next start on.",
    "show": "Show a model: context, quantization, size, licence, memory, source, folder.",
    "rm": "Remove a model's files from this machine.",
    "doctor": "Find out whether all is as it should be, and how to mend what is not.",
    "config": "Show or change what is set.",
    "plan": "Show how much context fits into memory, by the precision of the KV cache.",
    "cache": "Show the prompts kept on disk, or clear them.",
    "completion": "Print the script that completes commands and options.",
    "version": "Print the version of pensieve, and of what it stands on.",
    "uninstall": "List what pensieve keeps on this machine, and how all of it is removed.",
    "update": "Say how pensieve is updated. Nothing is looked up or changed.",
}

PACKAGES = {
    **dict.fromkeys(("start", "stop", "restart", "status", "logs", "doctor"), "commands.server"),
    **dict.fromkeys(("models", "pull", "use", "show", "rm", "plan"), "commands.models"),
    **dict.fromkeys(("env", "config", "cache", "completion"), "commands.setup"),
    **dict.fromkeys(("version", "uninstall", "update"), "commands.setup"),
}

# What other programs of this kind call them.
ALIASES = {"ls": "models", "ps": "status"}

# What holds for every command: each is a variable for this one run, and for what it starts.
EVERYWHERE = {
    "--quiet": ("PENSIEVE_QUIET", "Only what was asked for, and errors."),
    "--verbose": ("PENSIEVE_DEBUG", "Where an error comes from; more in the server's log."),
    "--no-color": ("NO_COLOR", "No colours."),
}
SHORT = {"-q": "--quiet", "-v": "--verbose"}
# Of what follows `claude` only these, where they stand first, are ours to read.
OF_CLAUDE = {"--lite", "-h", "--help"}
OF_CLAUDE_WITH_VALUE = "--thinking"


def build_app() -> "App":
    """The parser of every command. Whatever a command raises comes out of the call."""
    from cyclopts import App, Parameter

    app = App(
        name="pensieve",
        help=HELP,
        version=f"pensieve {__version__}",
        help_format="plaintext",
        group_parameters="Options",
        help_formatter=HelpLayout(),
        default_parameter=Parameter(negative="", show_default=False, show_choices=False),
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for name in COMMANDS:
        app.command(_import_path(name), name=name)
    return app


def run(words: Sequence[str]) -> int:
    """Do what the command line says; the exit code. Raises nothing but SystemExit."""
    variables, words = _everywhere(_untouched(words))
    with variables_set(variables):
        output.prepare()
        try:
            code = command_of(words)()
            output.flush()
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            output.forget_reader()
            return BROKEN_PIPE
        except Exception as error:  # noqa: BLE001 -- the last boundary: nobody above can say it better
            return _tell(error)
    return code if isinstance(code, int) else 0


def root_help() -> str:
    """What `pensieve` alone says."""
    options = [(f"{short}, {name}", EVERYWHERE[name][1]) for short, name in SHORT.items()]
    options += [("    --no-color", EVERYWHERE["--no-color"][1])]
    aliases = [f"{alias} is the same as {name}" for alias, name in ALIASES.items()]
    return "\n\n".join(
        [
            "Usage: pensieve COMMAND",
            HELP.rstrip(),
            f"Commands:\n{columns(list(COMMANDS.items()))}",
            f"{', '.join(aliases)}.",
            f"For every command:\n{columns(options)}",
            "pensieve help COMMAND tells more; so does pensieve help exit-codes.",
        ]
    )


def command_of(words: Sequence[str]) -> Callable[[], object]:
    """Return what the words ask for, ready to be called; parsing them has no effect.

    Raises `UsageError` or `CycloptsError` where they ask for nothing that there is.
    """
    match words:
        case [] | ["-h" | "--help" | "help"] | ["help", "help"]:
            return partial(output.data, root_help())
        case ["--version", *_]:
            return partial(output.data, f"pensieve {__version__}")
        case ["-h" | "--help" | "help", topic] if topic in TOPICS:
            return partial(output.data, TOPICS[topic])
        case ["-h" | "--help" | "help", *rest]:
            return _command([*rest, "--help"])
        case _:
            return _command(words)


def _command(words: Sequence[str]) -> Callable[[], object]:
    name, *rest = words = [ALIASES.get(words[0], words[0]), *words[1:]]
    if name not in COMMANDS:
        raise _unknown(name)
    if not rest:
        module, _, attribute = _import_path(name).partition(":")
        command = getattr(import_module(module), attribute)
        if _needs_nothing(command):
            return command
    command, bound, _ = build_app().parse_args(words, exit_on_error=False, print_error=False)
    return partial(command, *bound.args, **bound.kwargs)


def _needs_nothing(command: object) -> bool:
    """Whether it is a function that can be called as it is: there is nothing to parse then."""
    if not inspect.isfunction(command):
        return False
    parameters = inspect.signature(command).parameters.values()
    return all(
        each.kind is each.VAR_POSITIONAL or each.default is not each.empty for each in parameters
    )


def _import_path(name: str) -> str:
    module = f"{PACKAGES[name]}.{name}" if name in PACKAGES else f"{name}.command"
    return f"pensieve.cli.{module}:{name}"


def _everywhere(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The variables that options of every command stand for, and the other words. What follows `--` is not ours."""
    end = list(words).index("--") if "--" in words else len(words)
    named = [EVERYWHERE.get(SHORT.get(word, word)) for word in words[:end]]
    others = [word for word, option in zip(words, named, strict=False) if option is None]
    return {option[0]: "1" for option in named if option}, [*others, *words[end:]]


def _untouched(words: Sequence[str]) -> Sequence[str]:
    """The words, with `--` before those that are Claude Code's."""
    start = next(
        (at for at, word in enumerate(words) if SHORT.get(word, word) not in EVERYWHERE), 0
    )
    if words[start : start + 1] != ["claude"]:
        return words
    end = start + 1
    while end < len(words) and (taken := _words_of_ours(words[end])):
        end = min(end + taken, len(words))
    is_whole = end == len(words) or words[end] == "--"
    return words if is_whole else [*words[:end], "--", *words[end:]]


def _words_of_ours(word: str) -> int:
    """How many words an option of `pensieve claude` is; 0 for what is Claude Code's."""
    if word == OF_CLAUDE_WITH_VALUE:
        return 2
    return int(word in OF_CLAUDE or word.startswith(f"{OF_CLAUDE_WITH_VALUE}="))


def _unknown(name: str) -> UsageError:
    import difflib

    options = ["--help", "--version", *EVERYWHERE]
    near = difflib.get_close_matches(name, [*COMMANDS, *ALIASES, *options], n=1)
    near = near or difflib.get_close_matches(name.lstrip("-"), COMMANDS, n=1)
    meant = f' Did you mean "{near[0]}"?' if near else ""
    kind = "option" if name.startswith("-") else "command"
    return UsageError(
        f'Unknown {kind} "{shortened(name)}".{meant}', hint="See what there is:\n  pensieve --help"
    )


def _tell(error: Exception) -> int:
    if is_debug_asked():
        import traceback

        output.note("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, PensieveError):
        output.failure(error.message, error.hint)
        return error.exit_code
    if _is_of_parser(error):
        from pensieve.cli.parser_errors import usage_error

        return _tell(usage_error(error))
    return _tell_of_fault(error)


def _is_of_parser(error: Exception) -> "TypeGuard[CycloptsError]":
    """Without loading the parser: it may be what does not load."""
    return any(kind.__name__ == "CycloptsError" for kind in type(error).__mro__)


def _tell_of_fault(error: Exception) -> int:
    from pensieve.doctor.checks.python import blamed

    if found := blamed(error, child_environment({})):
        return _tell(found)
    output.failure(
        f"pensieve has a fault of its own: {type(error).__name__}: {error}",
        "With PENSIEVE_DEBUG=1 it shows where. Please report that.",
    )
    return 1

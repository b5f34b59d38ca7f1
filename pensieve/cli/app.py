"""The command line: maps commands to modules, and errors to a message and an exit code.

The only place where an error becomes text on the terminal; a traceback is printed only with
PENSIEVE_DEBUG=1. A command's module is imported when the command is called, and the parser
(cyclopts) only when there are arguments to parse.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, TypeGuard

from pensieve import __version__
from pensieve.cli.arguments import (
    COMMON_OPTIONS,
    SHORT_OPTIONS,
    separate_agent_arguments,
    split_common_options,
)
from pensieve.cli.ui import output
from pensieve.cli.ui.help import TOPICS, HelpLayout, columns
from pensieve.errors import PensieveError, UsageError
from pensieve.settings.resolve import child_environment, is_debug_enabled, variables_set
from pensieve.settings.spec import shortened

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

INTERRUPTED = 130
BROKEN_PIPE = 141

HELP = """\
A local model on your own Mac that speaks the Anthropic API.

For example:
  pensieve start                         # first time: downloads the model
  pensieve chat "Why is the sky blue?"
  pensieve claude                        # Claude Code on the local model
  pensieve launch codex                  # or another coding agent
  pensieve status
  pensieve stop
"""

# Each command with the first line of its help. PACKAGES holds its package.
COMMANDS = {
    "start": "Start the server in the background and wait until it answers.",
    "stop": "Stop the server after open answers have finished.",
    "restart": "Restart the server, or start it if none runs.",
    "status": "Show whether the server runs, where, and with which model.",
    "top": "Watch what the server does: open requests, speed, memory.",
    "logs": "Print the last lines of the server's log.",
    "env": "Print what points Claude Code, or another client, to the local model.",
    "claude": "Run Claude Code on the local model; start the server if needed.",
    "launch": "Run a coding agent on the local model; start the server if needed.",
    "chat": "Ask the model a question, or chat with it.",
    "models": "List recommended models and those on this machine.",
    "pull": "Download a model, or verify and repair one that is here.",
    "use": "Set the default model.",
    "show": "Show a model: context, quantization, size, licence, memory, source, folder.",
    "rm": "Remove a model's files from this machine.",
    "hosts": "Check another machine that is to run the model, by ssh.",
    "doctor": "Diagnose problems, and show the command that fixes each.",
    "bench": "Measure the speed of this machine with the served model.",
    "config": "Show or change settings.",
    "keys": "Create, list and revoke the keys of a team that shares this server.",
    "plan": "Show how much context fits into memory, by KV cache precision.",
    "cache": "Show or clear the prompt cache on disk.",
    "completion": "Print the script that completes commands and options in a shell.",
    "version": "Print the versions of pensieve and its libraries.",
    "uninstall": "List the files that pensieve keeps on this machine, or remove them.",
    "update": "Print the command that updates pensieve; change nothing.",
}

PACKAGES = {
    **dict.fromkeys(("start", "stop", "restart", "status", "logs"), "commands.server"),
    **dict.fromkeys(("doctor", "bench", "hosts"), "commands.server"),
    **dict.fromkeys(("models", "pull", "use", "show", "rm", "plan"), "commands.models"),
    **dict.fromkeys(("env", "config", "keys", "cache", "completion"), "commands.setup"),
    **dict.fromkeys(("version", "uninstall", "update"), "commands.setup"),
}

# ssh runs it on another machine, for a pensieve there.
REMOTE_WORKER = "remote-worker"

# Names of the same commands in comparable programs.
ALIASES = {"ls": "models", "ps": "status"}


def build_app() -> "App":
    """Return the parser of every command. Errors of a command propagate out of the call."""
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


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code. Raises only `SystemExit`."""
    variables, arguments = split_common_options(separate_agent_arguments(arguments))
    with variables_set(variables):
        output.prepare()
        try:
            code = parse_command(arguments)()
            output.flush()
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            return BROKEN_PIPE
        except Exception as error:  # noqa: BLE001 -- the last boundary
            return _report(error)
    return code if isinstance(code, int) else 0


def root_help() -> str:
    options = [
        (f"{short}, {name}", COMMON_OPTIONS[name][1]) for short, name in SHORT_OPTIONS.items()
    ]
    options += [("    --no-color", COMMON_OPTIONS["--no-color"][1])]
    aliases = [f"{alias} is the same as {name}" for alias, name in ALIASES.items()]
    return "\n\n".join(
        [
            "Usage: pensieve COMMAND",
            HELP.rstrip(),
            f"Commands:\n{columns(list(COMMANDS.items()))}",
            f"{', '.join(aliases)}.",
            f"For every command:\n{columns(options)}",
            "More: pensieve help COMMAND, pensieve help exit-codes.",
        ]
    )


def parse_command(arguments: Sequence[str]) -> Callable[[], object]:
    """Return the command bound to its arguments; parsing has no side effect.

    Raises `UsageError` or `CycloptsError` if the arguments name no command or do not fit it.
    """
    match arguments:
        case [] | ["-h" | "--help" | "help"] | ["help", "help"]:
            return partial(output.data, root_help())
        case [name] if name == REMOTE_WORKER:
            return import_module("pensieve.hosts.remote_worker").remote_worker
        case ["--version", *_]:
            return partial(output.data, f"pensieve {__version__}")
        case ["-h" | "--help" | "help", topic] if topic in TOPICS:
            return partial(output.data, TOPICS[topic])
        case ["-h" | "--help" | "help", *rest]:
            return _bind_command([*rest, "--help"])
        case _:
            return _bind_command(arguments)


def _bind_command(arguments: Sequence[str]) -> Callable[[], object]:
    name, *rest = arguments = [ALIASES.get(arguments[0], arguments[0]), *arguments[1:]]
    if name not in COMMANDS:
        raise _unknown_command(name)
    if not rest:
        module, _, attribute = _import_path(name).partition(":")
        command = getattr(import_module(module), attribute)
        if _has_no_required_parameter(command):
            return command
    command, bound, _ = build_app().parse_args(arguments, exit_on_error=False, print_error=False)
    return partial(command, *bound.args, **bound.kwargs)


def _has_no_required_parameter(command: object) -> bool:
    """Return whether it is a function that needs no argument and so no parser."""
    if not inspect.isfunction(command):
        return False
    parameters = inspect.signature(command).parameters.values()
    return all(
        each.kind is each.VAR_POSITIONAL or each.default is not each.empty for each in parameters
    )


def _import_path(name: str) -> str:
    module = f"{PACKAGES[name]}.{name}" if name in PACKAGES else f"{name}.command"
    return f"pensieve.cli.{module}:{name}"


def _unknown_command(name: str) -> UsageError:
    import difflib

    options = ["--help", "--version", *COMMON_OPTIONS]
    matches = difflib.get_close_matches(name, [*COMMANDS, *ALIASES, *options], n=1)
    matches = matches or difflib.get_close_matches(name.lstrip("-"), COMMANDS, n=1)
    suggestion = f' Did you mean "{matches[0]}"?' if matches else ""
    kind = "option" if name.startswith("-") else "command"
    return UsageError(
        f'Unknown {kind} "{shortened(name)}".{suggestion}',
        hint="List the commands:\n  pensieve --help",
    )


def _report(error: Exception) -> int:
    if is_debug_enabled():
        import traceback

        output.note("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, PensieveError):
        output.failure(error.message, error.hint)
        return error.exit_code
    if _is_parser_error(error):
        from pensieve.cli.parser_errors import usage_error

        return _report(usage_error(error))
    return _report_internal_error(error)


def _is_parser_error(error: Exception) -> "TypeGuard[CycloptsError]":
    """Compare by name: importing the parser may be what failed."""
    return any(kind.__name__ == "CycloptsError" for kind in type(error).__mro__)


def _report_internal_error(error: Exception) -> int:
    from pensieve.doctor.checks.python import blamed

    if found := blamed(error, child_environment({})):
        return _report(found)
    output.failure(
        f"Internal error in pensieve: {type(error).__name__}: {error}",
        "Set PENSIEVE_DEBUG=1 to see the traceback, and please report it.",
    )
    return 1

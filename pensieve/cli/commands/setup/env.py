"""`pensieve env`: prints the variables that point clients at the server, in a shell's syntax."""

from collections.abc import Mapping
from dataclasses import replace
from json import dumps

from pensieve.cli.claude.environment import variables
from pensieve.cli.claude.no_proxy import exception_for, restored
from pensieve.cli.client.target import Target, find_target, measured
from pensieve.cli.ui import output, shells
from pensieve.cli.ui.shells import Shell, shell_of, usage
from pensieve.errors import ServerUnavailableError, UsageError
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import ThinkingMode


def env(  # noqa: PLR0913 -- each is an option
    *,
    shell: Shell | None = None,
    lite: bool = False,
    thinking: ThinkingMode | None = None,
    unset: bool = False,
    check: bool = False,
    json: bool = False,
    dotenv: bool = False,
) -> int:
    """Print the variables that point Claude Code and other Anthropic clients here.

    For example:
      eval "$(pensieve env)"                 # bash, zsh, sh
      pensieve env | source                  # fish
      eval "$(pensieve env --unset)"         # undo it
      pensieve env --dotenv > .env

    The last line of the output shows how to use it in that shell.

    Parameters
    ----------
    shell
        Use the syntax of bash, zsh, fish, sh, nu or pwsh; the default is $SHELL's.
    lite
        Shorten the prompt for small models: three tools, a thousand tokens.
    thinking
        Let the model think before it answers: on, off or auto, which means if `pensieve
        show` lists thinking limited by a budget. The default is the setting `thinking`.
    unset
        Print the commands that remove these variables again.
    check
        Fail with exit code 69, printing nothing, unless the server answers.
    json
        Print one JSON object instead.
    dotenv
        Print a .env file instead.
    """
    _require_one_format(shell is not None or unset, json, dotenv)
    settings = settings_module.resolve()
    settings = replace(settings, thinking=thinking or settings.thinking)
    target = find_target(settings)
    environ = settings_module.child_environment({})
    if unset:
        output.data(_script(shell, variables(target), restored=restored(environ)))
        return 0
    target = measured(target, settings)
    _report_missing_server(target, must_run=check)
    values = variables(target, is_lite=lite) | exception_for(target.host, environ)
    options = " --lite" * lite + (f" --thinking {thinking}" if thinking else "")
    if json:
        output.data(dumps(values, indent=2))
    else:
        output.data(_dotenv(values) if dotenv else _script(shell, values, options))
    return 0


def _dotenv(values: Mapping[str, str]) -> str:
    return "\n".join(shells.dotenv(name, value) for name, value in values.items())


def _require_one_format(*requested: bool) -> None:
    if sum(requested) > 1:
        raise UsageError(
            "--shell, --json and --dotenv exclude each other; so do --unset and the last two."
        )


def _script(
    requested: Shell | None,
    values: Mapping[str, str],
    options: str = "",
    restored: Mapping[str, str] | None = None,
) -> str:
    """Return the shell's commands and a last line that shows how to use them.

    restored: the values before `pensieve env`; given only for --unset.
    """
    is_unset = restored is not None
    shell = requested or shell_of(settings_module.shell_path())
    command = f"pensieve env{f' --shell {requested}' if requested else ''}{options}"
    if is_unset:
        script, command = shells.unsets(shell, values, restored), f"{command} --unset"
    else:
        script = shells.exports(shell, values)
    return f"{script}\n# Use it with: {usage(shell, command, is_unset=is_unset)}"


def _report_missing_server(target: Target, *, must_run: bool) -> None:
    if target.is_running:
        return
    if must_run:
        raise ServerUnavailableError(
            "The server is not running.", hint="Start it with:\n  pensieve start"
        )
    output.warning("the server is not running. Start it with: pensieve start")

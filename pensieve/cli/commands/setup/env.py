"""`pensieve env`: the variables that point Anthropic clients at the server, in the words of the user's shell."""

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


def env(  # noqa: PLR0913 -- each a word of the command line
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
      eval "$(pensieve env --unset)"         # as if it had not been
      pensieve env --dotenv > .env

    The last line that it prints says how the shell in question reads it.

    Parameters
    ----------
    shell
        bash, zsh, fish, sh, nu or pwsh; the one that $SHELL names unless given.
    lite
        For small models: three tools and a prompt of a thousand tokens.
    thinking
        on, off or auto: whether the model is to think first. auto, unless the setting
        says otherwise: where `pensieve show` says that it thinks, and in bounds.
    unset
        Print what takes these variables away again, and no others.
    check
        Print nothing and fail (exit code 69) unless the server answers.
    json
        As one JSON object.
    dotenv
        As a .env file.
    """
    _refuse_two_forms(shell is not None or unset, json, dotenv)
    settings = settings_module.resolve()
    settings = replace(settings, thinking=thinking or settings.thinking)
    target = find_target(settings)
    environ = settings_module.child_environment({})
    if unset:
        output.data(_script(shell, variables(target), restored=restored(environ)))
        return 0
    target = measured(target, settings)
    _tell_of_absence(target, must_run=check)
    told = variables(target, is_lite=lite) | exception_for(target.host, environ)
    options = " --lite" * lite + (f" --thinking {thinking}" if thinking else "")
    if json:
        output.data(dumps(told, indent=2))
    else:
        output.data(_dotenv(told) if dotenv else _script(shell, told, options))
    return 0


def _dotenv(told: Mapping[str, str]) -> str:
    return "\n".join(shells.dotenv(name, value) for name, value in told.items())


def _refuse_two_forms(*asked: bool) -> None:
    if sum(asked) > 1:
        raise UsageError(
            "--shell, --json and --dotenv are forms: one of them. --unset is for shells."
        )


def _script(
    asked: Shell | None,
    told: Mapping[str, str],
    options: str = "",
    restored: Mapping[str, str] | None = None,
) -> str:
    """What the shell reads, and how it does. restored: given where the variables are taken away again."""
    is_unset = restored is not None
    shell = asked or shell_of(settings_module.shell_path())
    words = f"pensieve env{f' --shell {asked}' if asked else ''}{options}"
    if is_unset:
        script, words = shells.unsets(shell, told, restored), f"{words} --unset"
    else:
        script = shells.exports(shell, told)
    return f"{script}\n# Use it with: {usage(shell, words, is_unset=is_unset)}"


def _tell_of_absence(target: Target, *, must_run: bool) -> None:
    if target.is_running:
        return
    if must_run:
        raise ServerUnavailableError(
            "The server does not run.", hint="Start it with:\n  pensieve start"
        )
    output.warning("the server does not run. Start it with: pensieve start")

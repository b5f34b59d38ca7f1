"""`pensieve env`: prints what points a client at the server: variables, or a part of a file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from json import dumps
from typing import TYPE_CHECKING, Literal

from pensieve.cli.claude.environment import variables as claude_variables
from pensieve.cli.client.target import Target, find_target, measured
from pensieve.cli.launch import replaced
from pensieve.cli.launch.no_proxy import exception_for, restored
from pensieve.cli.ui import output, shells
from pensieve.cli.ui.shells import Shell, shell_of, usage
from pensieve.errors import AuthenticationError, ServerUnavailableError, UsageError
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import ThinkingMode

if TYPE_CHECKING:
    from pensieve.cli.launch.agent import Snippet

Client = Literal["claude", "openai", "codex", "opencode", "aider", "zed", "continue", "llm"]
# What prints a part of a file; the others print variables.
FILE_CLIENTS = frozenset({"codex", "opencode", "zed", "continue", "llm"})


def env(  # noqa: PLR0913 -- each is an option
    *,
    for_: Client = "claude",
    shell: Shell | None = None,
    lite: bool = False,
    thinking: ThinkingMode | None = None,
    unset: bool = False,
    check: bool = False,
    json: bool = False,
    dotenv: bool = False,
) -> int:
    """Print what points Claude Code, or another client, to the local model.

    For example:
      eval "$(pensieve env)"                 # bash, zsh, sh
      pensieve env | source                  # fish
      eval "$(pensieve env --unset)"         # undo it
      eval "$(pensieve env --for openai)"    # clients of OpenAI's API
      pensieve env --for opencode            # a part of its configuration file

    The last line of the output shows how to use it in that shell.

    Parameters
    ----------
    for_
        Print for claude (the default; also for other clients of Anthropic's API), openai
        or aider the variables, for codex, opencode, zed, continue or llm what to add to
        its configuration file.
    shell
        Use the syntax of bash, zsh, fish, sh, nu or pwsh; the default is $SHELL's.
    lite
        Shorten Claude Code's prompt for small models: three tools, a thousand tokens.
    thinking
        Let the model think before it answers: on, off or auto, which means if `pensieve
        show` lists thinking limited by a budget. The default is the setting `thinking`.
    unset
        Print the commands that undo it.
    check
        Fail, printing nothing, unless the server answers (exit code 69) and accepts this
        shell's key (1).
    json
        Print one JSON object instead.
    dotenv
        Print a .env file instead.
    """
    _require_one_format(shell is not None or unset, json, dotenv)
    request = _Request(for_, shell, lite, thinking, json, dotenv)
    return _print_undo(for_, shell) if unset else _print(request, must_run=check)


@dataclass(frozen=True, slots=True)
class _Request:
    client: Client
    shell: Shell | None
    is_lite: bool
    thinking: ThinkingMode | None
    as_json: bool
    as_dotenv: bool

    @property
    def is_for_a_shell(self) -> bool:
        return self.shell is not None or self.as_dotenv or self.is_lite

    @property
    def options(self) -> str:
        thinking = f" --thinking {self.thinking}" if self.thinking else ""
        return " --lite" * self.is_lite + thinking


def _print(request: _Request, *, must_run: bool) -> int:
    settings = settings_module.resolve()
    settings = replace(settings, thinking=request.thinking or settings.thinking)
    target = measured(find_target(settings), settings)
    _report_server(target, must_run=must_run)
    if request.client in FILE_CLIENTS:
        _require_file_format(request)
        _print_snippet(request.client, target, as_json=request.as_json)
    else:
        output.data(_values(request, target))
    return 0


def _values(request: _Request, target: Target) -> str:
    """Return the variables in the format that was requested."""
    values = _variables(request.client, target, is_lite=request.is_lite)
    exception = exception_for(target.host, settings_module.child_environment({}))
    if request.as_json:
        return dumps({**values, **exception}, indent=2)
    if request.as_dotenv:
        return _dotenv({**values, **exception})
    return _script(request, values, exception)


def _variables(client: Client, target: Target, *, is_lite: bool = False) -> Mapping[str, str]:
    if client == "claude":
        return claude_variables(target, is_lite=is_lite)
    # Not at the top: a plain `pensieve env` may run whenever a shell starts.
    from pensieve.cli.launch import aider, programs

    return aider.variables(target) if client == "aider" else programs.openai_variables(target)


def _snippet(client: Client, target: Target) -> "Snippet":
    from pensieve.cli.launch import codex, opencode, programs

    snippets = {
        "codex": codex.snippet,
        "opencode": opencode.snippet,
        "zed": programs.zed,
        "continue": programs.continue_dev,
        "llm": programs.llm,
    }
    return snippets[client](target)


def _dotenv(values: Mapping[str, str]) -> str:
    return "\n".join(shells.dotenv(name, value) for name, value in values.items())


def _script(request: _Request, values: Mapping[str, str], exception: Mapping[str, str]) -> str:
    """Return the shell's commands and a last line that shows how to use them."""
    client = request.client
    shell = request.shell or shell_of(settings_module.shell_path())
    environ = settings_module.child_environment({})
    kept = () if client == "claude" else replaced.to_keep(values, environ)
    script = shells.exports(shell, {**values, **exception}, kept)
    return f"{script}\n{_usage(client, shell, request.shell, request.options)}"


def _print_undo(client: Client, requested: Shell | None) -> int:
    target = find_target(settings_module.resolve())
    if client in FILE_CLIENTS:
        place = _snippet(client, target).place
        output.note(f"Nothing is set in a shell. Remove what you added to {place}.")
        return 0
    shell = requested or shell_of(settings_module.shell_path())
    environ = settings_module.child_environment({})
    names = _variables(client, target)
    script = shells.unsets(shell, names, restored(environ), replaced.to_restore(names, environ))
    output.data(f"{script}\n{_usage(client, shell, requested, ' --unset', is_unset=True)}")
    return 0


def _usage(
    client: Client, shell: Shell, requested: Shell | None, options: str, *, is_unset: bool = False
) -> str:
    """Return a comment with the command that evaluates what is printed with these options."""
    command = "pensieve env"
    command += f" --for {client}" if client != "claude" else ""
    command += f" --shell {requested}" if requested else ""
    return f"# Use it with: {usage(shell, command + options, is_unset=is_unset)}"


def _print_snippet(client: Client, target: Target, *, as_json: bool) -> None:
    """Print the part of a file, and where it belongs on standard error."""
    snippet = _snippet(client, target)
    if as_json:
        output.data(dumps({"place": snippet.place, "text": snippet.text}, indent=2))
        return
    output.data(snippet.text)
    output.note(f"\nAdd it to {snippet.place}. {snippet.next_step}".rstrip())
    if exception := exception_for(target.host, settings_module.child_environment({})):
        exports = shells.exports("sh", exception)
        output.warning(f"a proxy is set. Keep clients from using it for this machine:\n{exports}")


def _require_one_format(*requested: bool) -> None:
    if sum(requested) > 1:
        raise UsageError(
            "--shell, --json and --dotenv exclude each other; so do --unset and the last two."
        )


def _require_file_format(request: _Request) -> None:
    if request.is_for_a_shell:
        raise UsageError(
            f"--for {request.client} prints a part of a file; --shell, --dotenv and --lite do not"
            " apply."
        )


def _report_server(target: Target, *, must_run: bool) -> None:
    """Raise an error, or print a warning, if what is printed will not work."""
    if target.is_running:
        _report_key(target, must_run=must_run)
        return
    if must_run:
        raise ServerUnavailableError(
            "The server is not running.", hint="Start it with:\n  pensieve start"
        )
    output.warning("the server is not running. Start it with: pensieve start")


def _report_key(target: Target, *, must_run: bool) -> None:
    from pensieve.daemon.health_client import require_key

    try:
        require_key(target.server.base_url, target.trust, target.api_key)
    except AuthenticationError as error:
        if must_run:
            raise
        output.warning(f"{error.message} {error.hint}")

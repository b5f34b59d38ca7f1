"""`pensieve claude`: replaces this process with Claude Code, configured for the local model.

Environment and `--settings` last as long as the process; no file of the user's is written. The
key is passed only in ANTHROPIC_AUTH_TOKEN: for one in ANTHROPIC_API_KEY Claude Code asks first.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from pensieve.cli.claude.environment import KEY_VARIABLES, variables
from pensieve.cli.claude.no_proxy import exception_for
from pensieve.cli.claude.settings import settings_files, variables_in_files, with_settings
from pensieve.cli.client.target import is_to_think, target_of
from pensieve.cli.lifecycle.launching import Dependencies, default_dependencies, ensure_running
from pensieve.cli.lifecycle.server_report import require_healthy
from pensieve.cli.lifecycle.version_mismatch import warn_of_other_version
from pensieve.cli.ui import output
from pensieve.errors import ProgramMissingError, UsageError
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Flags, Settings, ThinkingMode

CONFIRMED_KEY_VARIABLE, KEY_VARIABLE = KEY_VARIABLES
# Upper bounds of Claude Code's first request (docs/clients.md) for other tokenizers too. The
# context must also fit a file and an answer.
FIRST_REQUEST_TOKENS = 4500
LITE_REQUEST_TOKENS = 1100
MIN_WORKING_TOKENS = 2048
# Claude Code's default is "high", the slowest effort of some models. The user's `--effort` takes
# precedence over this (tried with 2.1.330).
DEFAULT_EFFORT = "medium"

Execute = Callable[[str, list[str], Mapping[str, str]], NoReturn]


# How to find Claude Code and exec it; tests replace it.
@dataclass(frozen=True, slots=True)
class Program:
    find: Callable[[], str | None]
    execute: Execute


def claude(
    *arguments: str,
    lite: bool = False,
    thinking: ThinkingMode | None = None,
) -> int:
    """Run Claude Code on the local model; start the server if needed.

    For example:
      pensieve claude
      pensieve claude -p "What does this project do?"
      pensieve claude --lite --continue

    Options of pensieve come first; all other arguments go to Claude Code.

    Parameters
    ----------
    arguments
        Pass these to Claude Code.
    lite
        Shorten the prompt for small models: three tools, a thousand tokens.
    thinking
        Let the model think before it answers: on, off or auto, which means if `pensieve
        show` lists thinking limited by a budget. The default is the setting `thinking`.
    """
    program = Program(lambda: shutil.which("claude"), os.execve)
    settings = settings_module.resolve()
    settings = replace(settings, thinking=thinking or settings.thinking)
    return exec_claude(program, settings, default_dependencies(), arguments, is_lite=lite)


def exec_claude(
    program: Program,
    settings: Settings,
    dependencies: Dependencies,
    arguments: Sequence[str],
    *,
    is_lite: bool,
) -> NoReturn:
    """Start Claude Code in place of this process. Returns only by raising."""
    found = program.find()
    if found is None:
        raise ProgramMissingError(
            "Claude Code is not installed: the command `claude` was not found.",
            hint="Install it, for example with npm, and try again:\n"
            "  npm install -g @anthropic-ai/claude-code",
        )
    server = ensure_running(settings, Flags(), dependencies)
    require_healthy(server)
    target = replace(
        target_of(server.record, settings),
        context_tokens=server.health.context_tokens,
        thinks=is_to_think(settings, server.health.thinking),
    )
    warn_of_other_version(server.record, server.health)
    _require_context(target.context_tokens, target.model, is_lite=is_lite)
    target_variables = variables(target, is_lite=is_lite) | exception_for(
        target.host, _effective_environment()
    )
    del target_variables[CONFIRMED_KEY_VARIABLE]
    environment = settings_module.child_environment(target_variables)
    environment.pop(CONFIRMED_KEY_VARIABLE, None)
    settings_variables = {
        name: value for name, value in target_variables.items() if name != KEY_VARIABLE
    }
    output.flush()
    effort = DEFAULT_EFFORT if target.thinks else None
    all_arguments = with_settings(arguments, settings_variables, effort=effort)
    try:
        program.execute(found, [found, *all_arguments], environment)
    except OSError as error:
        raise ProgramMissingError(
            f"Claude Code cannot be run: {found}: {error.strerror}.",
            hint="Reinstall it, for example with npm:\n  npm install -g @anthropic-ai/claude-code",
        ) from error


def _effective_environment() -> dict[str, str]:
    """Return the environment, overridden by Claude Code's own settings files."""
    environ = settings_module.child_environment({})
    return environ | variables_in_files(settings_files(environ))


def _require_context(context_tokens: int, model: str, *, is_lite: bool) -> None:
    """Raise `UsageError` if the first request leaves too little context to work with."""
    needed = LITE_REQUEST_TOKENS if is_lite else FIRST_REQUEST_TOKENS
    if context_tokens >= needed + MIN_WORKING_TOKENS:
        return
    raise UsageError(
        f"{model} has a context of {context_tokens} tokens here. Claude Code's first request takes"
        f" about {needed} of them, which leaves too few to work with.",
        hint="Use a model with a larger context"
        + ("." if is_lite else ", or Claude Code with a shorter prompt:\n  pensieve claude --lite"),
    )

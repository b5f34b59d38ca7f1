"""`pensieve claude`: becomes Claude Code, on the local model. What follows the command is Claude Code's own business.

The environment and `--settings` last as long as the program does: no file of the user's is written. The key goes by
ANTHROPIC_AUTH_TOKEN alone, since Claude Code asks whether it may use one in ANTHROPIC_API_KEY.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from pensieve.cli.claude.environment import KEY_VARIABLES, variables
from pensieve.cli.claude.no_proxy import exception_for
from pensieve.cli.claude.settings import settings_files, variables_in_files, with_settings
from pensieve.cli.client.target import Target, is_to_think
from pensieve.cli.lifecycle.launching import Dependencies, answering, default_dependencies
from pensieve.cli.lifecycle.server_report import require_well
from pensieve.cli.lifecycle.version_mismatch import warn_of_other_version
from pensieve.cli.ui import output
from pensieve.daemon.launch import RunningServer
from pensieve.errors import ProgramMissingError, UsageError
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Flags, Settings, ThinkingMode

ASKED_ABOUT, TAKEN = KEY_VARIABLES
# What Claude Code 2.1.330 sends before the first word is said, in tokens: 4 000 to 4 300, with --lite 930 to 1 050. Beyond it
# there must be room for a file and an answer.
FIRST_REQUEST_TOKENS = 4500
LITE_REQUEST_TOKENS = 1100
ROOM_TOKENS = 2048
# Claude Code's default is "high", the slowest effort of some models. The user's `--effort` takes
# precedence over this (tried with 2.1.330).
AGENTS_EFFORT = "medium"

Execute = Callable[[str, list[str], Mapping[str, str]], NoReturn]


@dataclass(frozen=True, slots=True)
class Program:
    """Where Claude Code is looked for, and how this process becomes it; tests hand in others."""

    find: Callable[[], str | None]
    execute: Execute


def claude(
    *arguments: str,
    lite: bool = False,
    thinking: ThinkingMode | None = None,
) -> int:
    """Run Claude Code on the local model; the server is started if need be.

    For example:
      pensieve claude
      pensieve claude -p "What does this project do?"
      pensieve claude --lite --continue

    What follows goes to Claude Code as it is; options of pensieve's stand first.

    Parameters
    ----------
    arguments
        Claude Code's own.
    lite
        For small models: three tools and a prompt of a thousand tokens.
    thinking
        on, off or auto: whether the model is to think first. auto, unless the setting
        says otherwise: where `pensieve show` says that it thinks, and in bounds.
    """
    program = Program(lambda: shutil.which("claude"), os.execve)
    settings = settings_module.resolve()
    settings = replace(settings, thinking=thinking or settings.thinking)
    return exec_claude(program, settings, default_dependencies(), arguments, is_lite=lite)


def exec_claude(
    program: Program,
    settings: Settings,
    parts: Dependencies,
    arguments: Sequence[str],
    *,
    is_lite: bool,
) -> NoReturn:
    """Does not come back, except by what it raises."""
    found = program.find()
    if found is None:
        raise ProgramMissingError(
            "Claude Code is not installed: there is no command `claude`.",
            hint="Install it, for example with npm, then try again:\n"
            "  npm install -g @anthropic-ai/claude-code",
        )
    server = answering(settings, Flags(), parts)
    target = _served(server, settings)
    warn_of_other_version(server.record, server.health)
    _refuse_small(target.context_tokens, target.model, is_lite=is_lite)
    told = variables(target, is_lite=is_lite) | exception_for(target.host, _known_to_claude())
    del told[ASKED_ABOUT]
    environment = settings_module.child_environment(told)
    environment.pop(ASKED_ABOUT, None)
    of_settings = {name: value for name, value in told.items() if name != TAKEN}
    output.flush()
    effort = AGENTS_EFFORT if target.thinks else None
    words = with_settings(arguments, of_settings, effort=effort)
    try:
        program.execute(found, [found, *words], environment)
    except OSError as error:
        raise ProgramMissingError(
            f"Claude Code cannot be run: {found}: {error.strerror}.",
            hint="Install it again, for example with npm:\n  npm install -g @anthropic-ai/claude-code",
        ) from error


def _known_to_claude() -> dict[str, str]:
    """The environment, and above it what Claude Code's own settings files set."""
    environ = settings_module.child_environment({})
    return environ | variables_in_files(settings_files(environ))


def _served(found: RunningServer, settings: Settings) -> Target:
    record, health = found.record, found.health
    require_well(found)
    return Target(
        record.base_url,
        settings.api_key,
        record.model,
        is_running=True,
        context_tokens=health.context_tokens,
        thinks=is_to_think(settings, health.thinking),
    )


def _refuse_small(context_tokens: int, model: str, *, is_lite: bool) -> None:
    """A conversation that would end with its first question is not begun."""
    needed = LITE_REQUEST_TOKENS if is_lite else FIRST_REQUEST_TOKENS
    if context_tokens >= needed + ROOM_TOKENS:
        return
    raise UsageError(
        f"{model} holds {context_tokens} tokens here. Claude Code's first request takes about"
        f" {needed} of them, which leaves too few to work with.",
        hint="Take a model with a larger context"
        + ("." if is_lite else ", or the small form of Claude Code:\n  pensieve claude --lite"),
    )

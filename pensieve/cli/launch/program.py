"""Finds the agent of `pensieve launch` or `claude`, readies the server, and execs the agent."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from pensieve.cli.client.target import Target, is_to_think, target_of
from pensieve.cli.launch.agent import Agent
from pensieve.cli.lifecycle.launching import Dependencies, ensure_running
from pensieve.cli.lifecycle.server_report import require_healthy
from pensieve.cli.lifecycle.version_mismatch import warn_of_other_version
from pensieve.cli.ui import output
from pensieve.daemon.health_client import require_key
from pensieve.errors import ProgramMissingError, UsageError
from pensieve.settings.resolve import Flags, Settings

# What a context must hold next to the first request: a file and an answer.
MIN_WORKING_TOKENS = 2048
# Of another tokenizer than the one that the first requests were measured with.
MORE_TOKENS = 1.125
LARGER_CONTEXT = "pensieve use auto && pensieve restart"

Execute = Callable[[str, list[str], Mapping[str, str]], NoReturn]


# How to find an agent's command and exec it; tests replace it.
@dataclass(frozen=True, slots=True)
class Program:
    find: Callable[[str], str | None] = shutil.which
    execute: Execute = os.execve


def find(program: Program, agent: Agent) -> str:
    """Return the path of the agent's command. Raises `ProgramMissingError`."""
    if found := program.find(agent.command):
        return found
    raise ProgramMissingError(
        f"{agent.title} is not installed: the command `{agent.command}` was not found.",
        hint=f"Install it, for example with this, and try again:\n  {agent.install}",
    )


def running_target(settings: Settings, dependencies: Dependencies) -> Target:
    """Return the running server with its model's context, started if needed."""
    server = ensure_running(settings, Flags(), dependencies)
    require_healthy(server)
    require_key(server.record.direct_url, server.record.trust, settings.api_key)
    warn_of_other_version(server.record, server.health)
    return replace(
        target_of(server.record, settings),
        context_tokens=server.health.context_tokens,
        thinks=is_to_think(settings, server.health.thinking),
    )


def require_context(
    target: Target, agent: Agent, arguments: Sequence[str], other_way: str = ""
) -> None:
    """Raise `UsageError` if the first request leaves too little context to work with."""
    tokens = agent.tokens_of(arguments)
    if not tokens or target.context_tokens >= tokens * MORE_TOKENS + MIN_WORKING_TOKENS:
        return
    raise UsageError(
        f"{target.model} has a context of {target.context_tokens} tokens here. The first request"
        f" of {agent.title} takes about {tokens} of them, which leaves too few to work with.",
        hint=f"Use a model with a larger context:\n  {LARGER_CONTEXT}{other_way}",
    )


def execute(
    program: Program,
    agent: Agent,
    path: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
) -> NoReturn:
    """Replace this process with the agent. Returns only by raising."""
    output.flush()
    try:
        program.execute(path, [path, *arguments], environment)
    except OSError as error:
        raise ProgramMissingError(
            f"{agent.title} cannot be run: {path}: {error.strerror}.",
            hint=f"Reinstall it, for example with this:\n  {agent.install}",
        ) from error

"""`pensieve launch`: replaces this process with a coding agent, configured for the local model.

The configuration is in options, in variables and in a folder of pensieve's own; no file of the
user's is written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from pensieve.atomic_files import write_atomically
from pensieve.cli.claude.command import AGENT as CLAUDE_CODE
from pensieve.cli.claude.command import claude
from pensieve.cli.client.target import Target
from pensieve.cli.launch import aider, codex, opencode
from pensieve.cli.launch.agent import Agent, Setup
from pensieve.cli.launch.no_proxy import exception_for
from pensieve.cli.launch.program import Program, execute, find, require_context, running_target
from pensieve.cli.lifecycle.launching import Dependencies, default_dependencies
from pensieve.cli.ui import output
from pensieve.daemon.private_dirs import make_private
from pensieve.errors import NotWritableError, UsageError
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings

Name = Literal["claude", "codex", "opencode", "aider", "zed"]


@dataclass(frozen=True, slots=True)
class Launcher:
    agent: Agent
    # Of the agent's folder in our state, and the user's environment.
    setup: Callable[[Target, Path, Mapping[str, str]], Setup]


LAUNCHERS = {
    "codex": Launcher(codex.AGENT, codex.setup),
    "opencode": Launcher(opencode.AGENT, opencode.setup),
    "aider": Launcher(aider.AGENT, aider.setup),
}
ZED = Agent("Zed", "zed", "brew install --cask zed", 0)
AGENTS = {
    "claude": CLAUDE_CODE,
    **{name: launcher.agent for name, launcher in LAUNCHERS.items()},
    "zed": ZED,
}


def launch(agent: Name | None = None, /, *arguments: str) -> int:
    """Run a coding agent on the local model; start the server if needed.

    For example:
      pensieve launch                        # list the agents
      pensieve launch codex
      pensieve launch opencode run "What does this project do?"
      pensieve launch aider --edit-format diff

    Your own configuration of the agent is not changed. `pensieve launch claude` is
    the same as `pensieve claude`.

    Parameters
    ----------
    agent
        claude, codex, opencode or aider; zed shows what to add to its settings. Without
        one, list them all and how to install them.
    arguments
        Pass these to the agent.
    """
    program = Program()
    if agent is None:
        output.data(listing(program))
        return 0
    if agent == "claude":
        return claude(*arguments)
    if agent == "zed":
        raise _not_launched(ZED)
    settings = settings_module.resolve()
    return exec_agent(agent, program, settings, default_dependencies(), arguments)


def listing(program: Program) -> str:
    """Return a line an agent: whether it is installed, or the command that installs it."""
    return "\n".join(
        f"{name:<10}{agent.title:<13}{_presence(program, agent)}" for name, agent in AGENTS.items()
    )


def exec_agent(
    name: str,
    program: Program,
    settings: Settings,
    dependencies: Dependencies,
    arguments: Sequence[str],
) -> NoReturn:
    """Start the agent in place of this process. Returns only by raising."""
    launcher = LAUNCHERS[name]
    path = find(program, launcher.agent)
    target = running_target(settings, dependencies)
    require_context(target, launcher.agent, arguments)
    folder = settings.paths.agents / name
    environ = settings_module.child_environment({})
    setup = launcher.setup(target, folder, environ)
    _write(folder, setup.files)
    exception = exception_for(target.host, environ)
    environment = settings_module.child_environment({**setup.variables, **exception})
    execute(program, launcher.agent, path, [*setup.arguments, *arguments], environment)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    make_private(folder)
    try:
        for name, text in files.items():
            write_atomically(folder / name, text.encode(), is_durable=False)
    except OSError as error:
        raise NotWritableError(f"{folder} cannot be written: {error.strerror}.") from error


def _presence(program: Program, agent: Agent) -> str:
    if not program.find(agent.command):
        return f"not installed; to install it: {agent.install}"
    if agent is ZED:
        return "installed; to configure it: pensieve env --for zed"
    return "installed"


def _not_launched(agent: Agent) -> UsageError:
    return UsageError(
        f"{agent.title} is not launched: all its windows share one process and one settings file,"
        " which is yours.",
        hint="Show what to add to it, once:\n  pensieve env --for zed",
    )

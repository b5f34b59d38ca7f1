"""`pensieve claude`: replaces this process with Claude Code, configured for the local model.

Environment and `--settings` last as long as the process; no file of the user's is written. The
key is passed only in ANTHROPIC_AUTH_TOKEN: for one in ANTHROPIC_API_KEY Claude Code asks first.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from pensieve.cli.claude.environment import KEY_VARIABLES, variables
from pensieve.cli.claude.settings import settings_files, variables_in_files, with_settings
from pensieve.cli.launch.agent import Agent
from pensieve.cli.launch.no_proxy import exception_for
from pensieve.cli.launch.program import Program, execute, find, require_context, running_target
from pensieve.cli.lifecycle.launching import Dependencies, default_dependencies
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings, ThinkingMode

CONFIRMED_KEY_VARIABLE, KEY_VARIABLE = KEY_VARIABLES
QUIET = (
    *("agents", "auth", "auto-mode", "config", "doctor", "import", "install", "logs", "mcp"),
    *("plugin", "plugins", "purge", "rm", "setup-token", "stop", "update", "upgrade", "-v"),
)
AGENT = Agent(
    "Claude Code",
    "claude",
    "npm install -g @anthropic-ai/claude-code",
    3960,
    dict.fromkeys(QUIET, 0),
)
LITE_AGENT = replace(AGENT, first_request_tokens=1060)
LITE_WAY = "\nOr Claude Code with a shorter prompt:\n  pensieve claude --lite"
# Claude Code's default is "high", the slowest effort of some models. The user's `--effort` takes
# precedence over this (tried with 2.1.330).
DEFAULT_EFFORT = "medium"


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
    settings = settings_module.resolve()
    settings = replace(settings, thinking=thinking or settings.thinking)
    return exec_claude(Program(), settings, default_dependencies(), arguments, is_lite=lite)


def exec_claude(
    program: Program,
    settings: Settings,
    dependencies: Dependencies,
    arguments: Sequence[str],
    *,
    is_lite: bool,
) -> NoReturn:
    """Start Claude Code in place of this process. Returns only by raising."""
    path = find(program, AGENT)
    target = running_target(settings, dependencies)
    if is_lite:
        require_context(target, LITE_AGENT, arguments)
    else:
        require_context(target, AGENT, arguments, LITE_WAY)
    target_variables = variables(target, is_lite=is_lite) | exception_for(
        target.host, _effective_environment()
    )
    del target_variables[CONFIRMED_KEY_VARIABLE]
    environment = settings_module.child_environment(target_variables)
    environment.pop(CONFIRMED_KEY_VARIABLE, None)
    settings_variables = {
        name: value for name, value in target_variables.items() if name != KEY_VARIABLE
    }
    effort = DEFAULT_EFFORT if target.thinks else None
    all_arguments = with_settings(arguments, settings_variables, effort=effort)
    execute(program, AGENT, path, all_arguments, environment)


def _effective_environment() -> dict[str, str]:
    """Return the environment, overridden by Claude Code's own settings files."""
    environ = settings_module.child_environment({})
    return environ | variables_in_files(settings_files(environ))

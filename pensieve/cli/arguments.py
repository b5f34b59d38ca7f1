"""Splits the command line before it is parsed: common options, and the arguments of agents."""

from collections.abc import Sequence

# Options of every command: each sets a variable for this run and its child processes.
COMMON_OPTIONS = {
    "--quiet": ("PENSIEVE_QUIET", "Print only results and errors."),
    "--verbose": ("PENSIEVE_DEBUG", "Show where an error comes from; log more in the server."),
    "--no-color": ("NO_COLOR", "Print no colours."),
}
SHORT_OPTIONS = {"-q": "--quiet", "-v": "--verbose"}
# Options of `pensieve claude`, read only before the first argument of Claude Code.
CLAUDE_FLAGS = {"--lite", "-h", "--help"}
CLAUDE_VALUE_OPTION = "--thinking"


def split_common_options(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the variables that the common options stand for, and the other arguments."""
    # What follows `--` belongs to the command.
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    options = [
        COMMON_OPTIONS.get(SHORT_OPTIONS.get(argument, argument)) for argument in arguments[:end]
    ]
    rest = [
        argument for argument, option in zip(arguments, options, strict=False) if option is None
    ]
    return {option[0]: "1" for option in options if option}, [*rest, *arguments[end:]]


def separate_agent_arguments(arguments: Sequence[str]) -> Sequence[str]:
    """Insert `--` before the arguments that belong to Claude Code or another agent."""
    command = _next_own(arguments, 0)
    match list(arguments[command : command + 1]):
        case ["claude"]:
            return _separated(arguments, _end_of_claude_options(arguments, command + 1))
        case ["launch"]:
            return _separate_launched(arguments, command, _next_own(arguments, command + 1))
        case _:
            return arguments


def _separate_launched(arguments: Sequence[str], command: int, agent: int) -> Sequence[str]:
    """command, agent: where `launch` and the agent's name are."""
    match list(arguments[agent : agent + 1]):
        case [] | ["-h" | "--help"]:
            return arguments
        case ["claude"]:
            between, rest = arguments[command + 1 : agent], arguments[agent + 1 :]
            return separate_agent_arguments([*arguments[:command], *between, "claude", *rest])
        case _:
            return _separated(arguments, agent + 1)


def _end_of_claude_options(arguments: Sequence[str], start: int) -> int:
    end = start
    while end < len(arguments) and (count := _own_argument_count(arguments[end])):
        end = min(end + count, len(arguments))
    return end


def _next_own(arguments: Sequence[str], start: int) -> int:
    """Return where the first argument that is no common option is, from `start` on."""
    return next(
        (
            at
            for at in range(start, len(arguments))
            if SHORT_OPTIONS.get(arguments[at], arguments[at]) not in COMMON_OPTIONS
        ),
        len(arguments),
    )


def _separated(arguments: Sequence[str], end: int) -> Sequence[str]:
    is_complete = end == len(arguments) or arguments[end] == "--"
    return arguments if is_complete else [*arguments[:end], "--", *arguments[end:]]


def _own_argument_count(argument: str) -> int:
    """Return how many arguments an option of `pensieve claude` takes; 0 for Claude Code's."""
    if argument == CLAUDE_VALUE_OPTION:
        return 2
    return int(argument in CLAUDE_FLAGS or argument.startswith(f"{CLAUDE_VALUE_OPTION}="))

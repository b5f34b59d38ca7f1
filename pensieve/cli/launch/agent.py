"""An agent and what it is given, as values; and what several configurations have in common.

`pensieve env` imports it, so it imports nothing that starts a server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pensieve.cli.client.target import Target

# The provider's name in the agents' configurations.
PROVIDER = "pensieve"
# Has the key for agents that read it from a variable. Not the setting's own variable, which a user
# may have set for pensieve itself.
KEY_VARIABLE = "PENSIEVE_KEY"
MAX_OUTPUT_TOKENS = 8192
# Options of each agent.
ASKING_NOTHING = frozenset({"--help", "-h", "--version"})


@dataclass(frozen=True, slots=True)
class Agent:
    title: str  # as its makers write it
    command: str
    install: str  # the command that installs it
    first_request_tokens: int  # as docs/clients.md has them
    # The same of subcommands that ask for less; 0: nothing is asked of the model.
    subcommand_tokens: Mapping[str, int] = field(default_factory=dict[str, int])

    def tokens_of(self, arguments: Sequence[str]) -> int:
        """Return the tokens of the first request of a run with these arguments."""
        if any(argument in ASKING_NOTHING for argument in arguments):
            return 0
        first = arguments[0] if arguments else ""
        return self.subcommand_tokens.get(first, self.first_request_tokens)


@dataclass(frozen=True, slots=True)
class Setup:
    arguments: tuple[str, ...] = ()  # before the user's own, which take precedence
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    files: Mapping[str, str] = field(
        default_factory=dict[str, str]
    )  # by name in the agent's folder


# What `pensieve env --for` prints for a program that reads a file.
@dataclass(frozen=True, slots=True)
class Snippet:
    place: str
    text: str
    next_step: str = ""


def openai_url(target: Target) -> str:
    return f"{target.base_url}/v1"


def output_tokens(target: Target) -> int:
    """Return an answer length that leaves room in the context."""
    return min(MAX_OUTPUT_TOKENS, target.context_tokens // 8)

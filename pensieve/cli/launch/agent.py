"""An agent and what it is given, as values; and what several configurations have in common.

`pensieve env` imports it, so it imports nothing that starts a server.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pensieve.cli.client.target import Target

# The provider's name in the agents' configurations.
PROVIDER = "pensieve"
# Has the key for agents that read it from a variable. Not the setting's own variable, which a user
# may have set for pensieve itself.
KEY_VARIABLE = "PENSIEVE_KEY"
MAX_OUTPUT_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Agent:
    title: str  # as its makers write it
    command: str
    install: str  # the command that installs it
    first_request_tokens: int  # upper bound, for other tokenizers than the measured one too


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

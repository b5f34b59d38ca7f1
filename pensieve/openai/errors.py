"""The error envelope of OpenAI's API. Knows no HTTP status.

An error of a request's content names its field by a path at the beginning of the message, as
`messages.0.content: Field required`: here that is `param`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pensieve.api.base import ApiModel

# The last two name what of a key's limits is reached.
ErrorType = Literal["invalid_request_error", "server_error", "requests", "tokens"]

_PATH = re.compile(r"([a-z_]+(?:\.[A-Za-z0-9_]+)*): (.+)", re.DOTALL)
_INDEX = re.compile(r"\.([0-9]+)(?=\.|$)")


_Renaming = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


@dataclass(frozen=True, slots=True)
class FieldPaths:
    """A request's fields, for those of the conversation that it is translated to, in which later
    steps find errors.
    """

    prompt: str
    renamed: Sequence[_Renaming]


_FORMAT = re.compile(r"^output_config\.format(?:\.schema)?")
# A tool of the conversation, or its schema or grammar.
_TOOL = re.compile(r"^tools\.([0-9]+)\.custom(?:\.(input_schema|input_grammar))?")
# Of requests before their translation: the fields are the clients' own.
CHAT_FIELDS = FieldPaths("messages", ())
TEXT_FIELDS = FieldPaths("prompt", ())
RESPONSES_FIELDS = FieldPaths("input", ())


def chat_fields(tool_paths: Sequence[str]) -> FieldPaths:
    """tool_paths: where the conversation's tools are in the request, which has others, too."""
    answer = (_FORMAT, "response_format.json_schema.schema")
    tools = _tools_at(tool_paths, ".format.grammar.definition")
    return FieldPaths(CHAT_FIELDS.prompt, (answer, tools))


def responses_fields(tool_paths: Sequence[str]) -> FieldPaths:
    """tool_paths: where the conversation's tools are in the request, which has others, and groups
    of them.
    """
    return FieldPaths(
        RESPONSES_FIELDS.prompt,
        (
            (_FORMAT, "text.format.schema"),
            _tools_at(tool_paths, ".format.definition"),
            (re.compile("^messages"), "input"),
        ),
    )


def _tools_at(paths: Sequence[str], grammar: str) -> _Renaming:
    parts = {None: "", "input_schema": ".parameters", "input_grammar": grammar}

    def tool(match: re.Match[str]) -> str:
        index = int(match[1])
        return (paths[index] if index < len(paths) else f"tools.{index}") + parts[match[2]]

    return _TOOL, tool


class OpenAIErrorBody(ApiModel):
    """What went wrong."""

    message: str
    type: ErrorType
    param: str | None = None
    code: str | None = None


class OpenAIError(ApiModel):
    """The body of every error response; also the last event of a stream that failed."""

    error: OpenAIErrorBody


def with_param(message: str, fields: FieldPaths) -> tuple[str, str | None]:
    """Return the message with the path as a client writes it, and the path."""
    match = _PATH.fullmatch(message)
    if match is None:
        return message, None
    path = match[1]
    for pattern, replacement in fields.renamed:
        path = pattern.sub(replacement, path)
    param = _INDEX.sub(r"[\1]", path)
    return f"{param}: {match[2]}", param


def too_long(prompt_tokens: int, context_tokens: int) -> str:
    """Return OpenAI's sentence for a prompt over the context: clients compact when they read it."""
    return (
        f"This model's maximum context length is {context_tokens} tokens. However, your messages"
        f" resulted in {prompt_tokens} tokens. Please reduce the length of the messages."
    )

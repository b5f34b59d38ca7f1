"""Tools that are no functions: custom ones, whose input is text, and those that OpenAI runs.

The log names a tool's type only if it is one of OpenAI's: it must not repeat a client's own text.
"""

import logging
from collections.abc import Sequence

from pydantic import JsonValue

from pensieve.api.messages.tools import InputGrammar, TextTool

_log = logging.getLogger("pensieve.openai")

_INPUT: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
_KINDS = frozenset(
    [
        "apply_patch",
        "code_interpreter",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "namespace",
        "shell",
        "tool_search",
        "web_search",
        "web_search_preview",
    ]
)


def text_tool(name: str, description: str, grammar: InputGrammar | None) -> TextTool:
    """Return a tool with one text argument.

    Its description has the grammar: a model writes better what it expects.
    """
    if grammar is not None:
        description += f"\n\nThe input matches this {grammar.syntax} grammar:\n{grammar.definition}"
    return TextTool(
        type="custom",
        name=name,
        description=description.strip(),
        input_schema=_INPUT,
        input_grammar=grammar,
    )


def kind_for_log(kind: object) -> str:
    return kind if isinstance(kind, str) and kind in _KINDS else "unknown"


def log_ignored_tools(types: Sequence[object]) -> None:
    """Write one line for all tools of a request that are left out, since every turn has them."""
    if types:
        kinds = sorted(set(map(kind_for_log, types)))
        _log.info(
            "ignoring %d tools that this server cannot run, of type %s",
            len(types),
            ", ".join(kinds),
        )

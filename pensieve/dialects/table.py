"""Which dialect a model speaks, found from its chat template. A new dialect is a new module and a line here."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import ModuleType

from pensieve.dialects import (
    deepseek,
    gemma,
    glm,
    harmony,
    hermes,
    kimi,
    lfm2,
    llama3,
    minimax,
    mistral,
    plain,
    qwen_coder,
)
from pensieve.dialects.dialect import Dialect, ThinkingForm, ToolCall
from pensieve.dialects.writing import written_calls
from pensieve.errors import InvalidRequestError

# The template's text for messages, told some variables. Raises `InvalidRequestError` where it refuses them.
Render = Callable[[Sequence[Mapping[str, object]], Mapping[str, object]], str]

# In this order: what some templates hold is held by others too.
DIALECTS: tuple[ModuleType, ...] = (
    *(harmony, minimax, gemma, glm, lfm2, kimi, deepseek, qwen_coder, mistral, hermes, llama3),
)

_TOOL = {
    "type": "function",
    "function": {
        "name": "quartz",
        "description": "zebra",
        "parameters": {"type": "object", "properties": {"violin": {"type": "string"}}},
    },
}


def dialect_of(template: str, render: Render, controls: Collection[str]) -> Dialect:
    """The dialect of a chat template: one whose module knows it and that it writes tools for, else the plain one.

    controls: the texts of the model's control tokens.
    """
    found = (dialect for module in DIALECTS if (dialect := module.dialect_in(template)))
    dialect = next((known for known in found if _is_written(known, render)), plain.DIALECT)
    if dialect.thinking is not None:
        return dialect
    return replace(dialect, thinking=thinking_of(template, controls))


def thinking_of(template: str, controls: Collection[str]) -> ThinkingForm | None:
    """The usual marks of thoughts, where the template or the vocabulary has them."""
    if "<think>" not in template and "<think>" not in controls:
        return None
    switches = (name for name in ("enable_thinking", "thinking") if f"{name} is " in template)
    return ThinkingForm(switch=next(switches, None))


def _is_written(dialect: Dialect, render: Render) -> bool:
    """Whether the template writes tools, calls and results: some pass over what they do not know without a word."""
    call = ToolCall("quartz", {"violin": "copper"})
    used: dict[str, object] = {"role": "assistant", "content": ""}
    if dialect.writer == "text":
        used["content"] = written_calls(dialect.calls, [call])
    else:
        function = {"name": call.name, "arguments": call.arguments}
        used["tool_calls"] = [{"id": "a23456789", "type": "function", "function": function}]
    result = {"role": "tool", "name": "quartz", "tool_call_id": "a23456789", "content": "walnut"}
    try:
        text = render([{"role": "user", "content": "amber"}, used, result], {"tools": [_TOOL]})
    except InvalidRequestError:
        return False
    places = [text.find(word) for word in ("zebra", "copper", "walnut")]
    return -1 not in places and "amber" in text

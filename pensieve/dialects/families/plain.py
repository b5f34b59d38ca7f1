"""For models whose chat template knows no tools: tools as text, calls in tags, a rule and an example of how to write one.

TEMPLATE is for models without any chat template: the conversation as a transcript that the model goes on with.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from pensieve.dialects.dialect import JSON_CALL, Dialect, Schema, ToolCall, ToolSpec
from pensieve.dialects.format_calls import format_calls, format_minified
from pensieve.dialects.grammar.schema_types import properties, required

TEMPLATE = """\
{{ bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}
{{- message.content }}
{%- else %}
{{- 'User: ' if message.role == 'user' else 'Assistant: ' }}{{ message.content }}
{%- endif %}
{{- '\\n\\n' }}
{%- endfor %}
{{- 'Assistant:' }}
"""

DIALECT = Dialect("plain", JSON_CALL, tools="text", has_bare_calls=True)

# What stands for a value in the example.
_EXAMPLES: Mapping[str, object] = {
    "integer": 1,
    "number": 1,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}


def tools_text(tools: Sequence[ToolSpec]) -> str:
    """The part of the system prompt that tells of `tools`."""
    listed = "\n".join(map(tool_line, tools))
    return f"""\
# Tools
You can use these tools, one JSON object a line:
{listed}

To use a tool, write its name and arguments, as its input_schema has them, in this form and nothing after it:
{format_calls(JSON_CALL, [_example(tools[0])])}
The result then comes in <tool_result> tags. Use a tool only where it is needed."""


def tool_line(tool: ToolSpec) -> str:
    """One tool as JSON, without a space that is not needed."""
    described = {"description": tool.description} if tool.description else {}
    return format_minified({"name": tool.name, **described, "input_schema": tool.schema})


def _example(tool: ToolSpec) -> ToolCall:
    """A call of `tool` with the least that it takes."""
    parts = properties(tool.schema)
    return ToolCall(
        tool.name, {name: _value(parts[name]) for name in parts if name in required(tool.schema)}
    )


def _value(schema: Schema) -> object:
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return cast("list[object]", choices)[0]
    return _EXAMPLES.get(str(schema.get("type")), "...")

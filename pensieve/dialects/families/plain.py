"""Models whose chat template has no tools: tools as text, calls in tags, a rule and an example.

TEMPLATE is for models without a chat template: a transcript that the model continues.
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

# Values in the example call, by type.
_EXAMPLES: Mapping[str, object] = {
    "integer": 1,
    "number": 1,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}


def tools_text(tools: Sequence[ToolSpec]) -> str:
    """Return the part of the system prompt that describes `tools`."""
    listed = "\n".join(map(tool_line, tools))
    return f"""\
# Tools
You can use these tools, one JSON object a line:
{listed}

To use a tool, write its name and arguments, as its input_schema has them, in this form and \
nothing after it:
{format_calls(JSON_CALL, [_example(tools[0])])}
The result then comes in <tool_result> tags. Use a tool only where it is needed."""


def tool_line(tool: ToolSpec) -> str:
    """Return one tool as minified JSON."""
    described = {"description": tool.description} if tool.description else {}
    return format_minified({"name": tool.name, **described, "input_schema": tool.schema})


def _example(tool: ToolSpec) -> ToolCall:
    """Return a call of `tool` with its required parameters."""
    parts = properties(tool.schema)
    return ToolCall(
        tool.name, {name: _value(parts[name]) for name in parts if name in required(tool.schema)}
    )


def _value(schema: Schema) -> object:
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return cast("list[object]", choices)[0]
    return _EXAMPLES.get(str(schema.get("type")), "...")

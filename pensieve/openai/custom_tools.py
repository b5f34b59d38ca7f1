"""Custom tools, whose input is text: as tools with one text argument."""

from pydantic import JsonValue

from pensieve.api.messages.tools import InputGrammar, TextTool

_INPUT: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


def text_tool(name: str, description: str, grammar: InputGrammar | None) -> TextTool:
    """Return the tool. Its description has the grammar: a model writes better what it expects."""
    if grammar is not None:
        description += f"\n\nThe input matches this {grammar.syntax} grammar:\n{grammar.definition}"
    return TextTool(
        type="custom",
        name=name,
        description=description.strip(),
        input_schema=_INPUT,
        input_grammar=grammar,
    )

"""Define the tools that Anthropic specifies and clients run: clients send only the type."""

from collections.abc import Mapping
from typing import assert_never

from pensieve.api.messages.tools import ClientTool
from pensieve.dialects.dialect import Schema, ToolSpec

_TEXT: Schema = {"type": "string"}
_RANGE: Schema = {
    "type": "array",
    "items": {"type": "integer"},
    "minItems": 2,
    "maxItems": 2,
    "description": "First and last line to view, from 1 on; -1 is the end of the file.",
}


def client_tool(tool: ClientTool) -> ToolSpec:
    """Return the tool as models see it, under the client's name for it."""
    match tool.type:
        case "bash_20241022" | "bash_20250124":
            return ToolSpec(tool.name, _BASH, _BASH_INPUT)
        case "text_editor_20241022" | "text_editor_20250124":
            return ToolSpec(tool.name, _EDITOR, _editor_input(_OLD_EDITS, "undo_edit"))
        case "text_editor_20250429":
            return ToolSpec(tool.name, _EDITOR, _editor_input(_OLD_EDITS))
        case "text_editor_20250728":
            return ToolSpec(tool.name, _EDITOR, _editor_input(_EDITS))
        case "memory_20250818":
            return ToolSpec(tool.name, _MEMORY, _MEMORY_INPUT)
        case _:
            assert_never(tool.type)


_BASH = "Run a command in a bash session that keeps its state between calls."
_BASH_INPUT: Schema = {
    "type": "object",
    "properties": {
        "command": {"type": "string", "description": "The command to run."},
        "restart": {"type": "boolean", "description": "True to start the session anew instead."},
    },
    "additionalProperties": False,
}
_EDITOR = (
    "View, create and edit text files. view shows a file with line numbers, or a directory; create"
    " writes a whole new file; str_replace replaces the one place where old_str stands by new_str;"
    " insert puts text behind line insert_line."
)
_MEMORY = (
    "Keep notes in files under /memories that last between conversations: view, create,"
    " str_replace, insert, delete and rename them. Look there before you begin a task."
)


def _editor_input(edits: Mapping[str, Schema], *more_commands: str) -> Schema:
    commands = ["view", "create", "str_replace", "insert", *more_commands]
    return _commands(commands, {"path": _TEXT, **edits, "view_range": _RANGE}, ["command", "path"])


def _commands(commands: list[str], properties: Mapping[str, Schema], required: list[str]) -> Schema:
    return {
        "type": "object",
        "properties": {"command": {"type": "string", "enum": commands}, **properties},
        "required": required,
        "additionalProperties": False,
    }


_OLD_EDITS: Mapping[str, Schema] = {
    "file_text": {"type": "string", "description": "For create: the file's whole text."},
    "old_str": {"type": "string", "description": "For str_replace: the text to replace."},
    "new_str": {"type": "string", "description": "For str_replace and insert: the new text."},
    "insert_line": {"type": "integer", "description": "For insert: the line to insert behind."},
}
_EDITS: Mapping[str, Schema] = {
    **_OLD_EDITS,
    "new_str": {"type": "string", "description": "For str_replace: the text in its place."},
    "insert_text": {"type": "string", "description": "For insert: the text to insert."},
}
_MEMORY_INPUT = _commands(
    ["view", "create", "str_replace", "insert", "delete", "rename"],
    {
        "path": _TEXT,
        **_EDITS,
        "old_path": {"type": "string", "description": "For rename: the path as it is."},
        "new_path": {"type": "string", "description": "For rename: the path as it shall be."},
        "view_range": _RANGE,
    },
    ["command"],
)

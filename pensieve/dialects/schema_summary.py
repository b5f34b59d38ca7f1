"""Summarize tool sets that would fill the model's context: what each tool is, not its use."""

import re
from collections.abc import Mapping
from typing import cast

from pensieve.dialects.dialect import Schema, ToolSpec

# Average characters per token, in JSON and in prose full of names.
CHARS_PER_TOKEN = 3.5
MAX_SENTENCE_CHARS = 160
MAX_NOTE_CHARS = 60  # of a parameter's description

_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|\n|$)", re.DOTALL)
_ANNOTATIONS = {"$schema", "title", "$comment", "$id"}


def summarized(tool: ToolSpec) -> ToolSpec:
    """Return the tool with the first sentence of its description and no long parameter notes."""
    return ToolSpec(
        tool.name,
        _first_sentence(tool.description, MAX_SENTENCE_CHARS),
        _compacted_fields(tool.schema),
    )


def _compacted(schema: object) -> object:
    """Recurse; the depth is bounded by what a request may contain."""
    if isinstance(schema, list):
        return [_compacted(item) for item in cast("list[object]", schema)]
    return _compacted_fields(cast("Schema", schema)) if isinstance(schema, Mapping) else schema


def _compacted_fields(schema: Schema) -> Schema:
    parts = {key: _part(key, part) for key, part in schema.items()}
    return {key: part for key, part in parts.items() if part is not None}


def _part(key: str, value: object) -> object:
    if isinstance(value, str):
        is_included = key not in _ANNOTATIONS and (
            key != "description" or len(value) <= MAX_NOTE_CHARS
        )
        return value if is_included else None
    return value if key in {"enum", "const"} else _compacted(value)


def _first_sentence(text: str, max_chars: int) -> str:
    found = _SENTENCE.match(text.strip())
    sentence = found[0].strip() if found else ""
    return sentence if len(sentence) <= max_chars else sentence[: max_chars - 1].rstrip() + "…"


def chars_of(schema: Schema, description: str) -> int:
    """Return about how many characters a tool takes in the prompt."""
    return len(str(schema)) + len(description)

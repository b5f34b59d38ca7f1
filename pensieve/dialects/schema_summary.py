"""Large tool sets in few words, for a model whose context they would fill: what each tool is, without how to use it well."""

import re
from collections.abc import Mapping
from typing import cast

from pensieve.dialects.dialect import Schema, ToolSpec

# About how many letters a token has, in JSON and in prose that is full of names.
CHARS_PER_TOKEN = 3.5
MAX_SENTENCE_CHARS = 160
# Of a parameter, a few words.
MAX_NOTE_CHARS = 60

_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|\n|$)", re.DOTALL)
_SILENT = {"$schema", "title", "$comment", "$id"}


def summarized(tool: ToolSpec) -> ToolSpec:
    """The tool with the first sentence of its description, and parameters without theirs where those are long."""
    return ToolSpec(
        tool.name,
        _first_sentence(tool.description, MAX_SENTENCE_CHARS),
        _fewer(tool.schema),
    )


def _compacted(schema: object) -> object:
    """The schema's own depth is bounded by what a request may be."""
    if isinstance(schema, list):
        return [_compacted(item) for item in cast("list[object]", schema)]
    return _fewer(cast("Schema", schema)) if isinstance(schema, Mapping) else schema


def _fewer(schema: Schema) -> Schema:
    parts = {key: _part(key, part) for key, part in schema.items()}
    return {key: part for key, part in parts.items() if part is not None}


def _part(key: str, value: object) -> object:
    if isinstance(value, str):
        is_said = key not in _SILENT and (key != "description" or len(value) <= MAX_NOTE_CHARS)
        return value if is_said else None
    return value if key in {"enum", "required", "const"} else _compacted(value)


def _first_sentence(text: str, most: int) -> str:
    found = _SENTENCE.match(text.strip())
    sentence = found[0].strip() if found else ""
    return sentence if len(sentence) <= most else sentence[: most - 1].rstrip() + "…"


def chars_of(schema: Schema, description: str) -> int:
    """About how much a tool takes."""
    return len(str(schema)) + len(description)

"""Find the chat templates of a model folder, in the places and by the names that transformers uses.

Some models have several: `default` for any conversation, `tool_use` for one with tools.
"""

import os
from collections.abc import Mapping
from typing import Any, cast

import jinja2

from pensieve.dialects.families import plain
from pensieve.models.folder.integrity import damaged, read_json, read_template
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.models.tokenizer.chat_template import ChatTemplate

SPECIAL_ROLES = (
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
)


def open_template(
    model: ModelFolder, tokenizer_config: Mapping[str, Any], special: Mapping[str, str]
) -> ChatTemplate:
    """Return the model's template, or a plain transcript if it has none.

    Raises `ModelDamagedError` for a template that is not Jinja.
    """
    try:
        templates = _named_templates(model, tokenizer_config)
        tool_source = templates.get("tool_use")
        source = (
            templates.get("default")
            or tool_source
            or next(iter(templates.values()), plain.TEMPLATE)
        )
        is_other = tool_source not in (None, source)
        return ChatTemplate(source, special, tool_source=tool_source if is_other else None)
    except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError) as error:
        # Python's compiler raises these for templates that are nested too deeply.
        damaged(model, "The chat template", f"cannot be read ({error})")


def _named_templates(model: ModelFolder, tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """Return templates by name, in transformers' order: own files, the tokenizer's config, a
    JSON file.
    """
    folder = model.folder / "additional_chat_templates"
    files = {file.stem: file for file in sorted(folder.glob("*.jinja"))}
    if os.path.lexists(default := model.folder / "chat_template.jinja"):
        files["default"] = default
    from_files = {name: read_template(model, file) for name, file in files.items()}
    if "default" in from_files:
        return from_files
    stored = tokenizer_config.get("chat_template") or (
        read_json(model, "chat_template.json") or {}
    ).get("chat_template")
    templates = _by_name(stored)
    texts = {name: text for name, text in templates.items() if isinstance(text, str)}
    if texts.keys() != templates.keys():
        damaged(model, "The chat template", "is not a text")
    return {**texts, **from_files}


def _by_name(stored: object) -> dict[str, object]:
    """Name a single template `default`; lists and objects contain names."""
    match stored:
        case str():
            return {"default": stored}
        case list():
            entries = cast("list[object]", stored)
            tables = (cast("dict[str, object]", each) for each in entries if isinstance(each, dict))
            return {str(each.get("name")): each.get("template", "") for each in tables}
        case dict():
            return cast("dict[str, object]", stored)
        case _:
            return {}


def special_tokens(tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens' texts by role; chat templates read them as variables."""
    texts = {role: _text_of(tokenizer_config.get(role)) for role in SPECIAL_ROLES}
    return {role: text for role, text in texts.items() if text}


def _text_of(token: object) -> str:
    """Accept a token as text or as an object with `content`."""
    if isinstance(token, dict):
        token = cast("dict[str, object]", token).get("content")
    return token if isinstance(token, str) else ""

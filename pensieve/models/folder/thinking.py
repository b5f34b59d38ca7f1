"""Whether a folder's model thinks, by its chat template, without loading its tokenizer.

For commands that describe models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from pensieve.dialects.probing.thinking_controls import nearest_effort
from pensieve.dialects.registry import dialect_of
from pensieve.models.folder.integrity import read_json
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.models.folder.template_files import open_template, special_tokens
from pensieve.models.served_model import Thinking, thinking_of


@dataclass(frozen=True, slots=True)
class ThinkingAbilities:
    """How a model thinks, by its template."""

    kind: Thinking
    efforts: Sequence[str] = ()  # weakest first
    default_effort: str | None = None
    can_be_off: bool = True


def thinking_in_folder(model: ModelFolder) -> ThinkingAbilities:
    """Raises `ModelDamagedError` for files that cannot be read."""
    tokenizer_config = read_json(model, "tokenizer_config.json") or {}
    template = open_template(model, tokenizer_config, special_tokens(tokenizer_config))
    controls = _controls(model, tokenizer_config)
    dialect = dialect_of(template.source, template.probing_render(), controls, template.names)
    form, kind = dialect.thinking, thinking_of(dialect, controls)
    if form is None or kind == "none":
        return ThinkingAbilities("none")
    return ThinkingAbilities(
        kind, tuple(form.efforts), nearest_effort(form, None), can_be_off=bool(form.off)
    )


def _controls(model: ModelFolder, tokenizer_config: dict[str, Any]) -> frozenset[str]:
    """Read the added tokens, from tokenizer.json (up to 20 MB) only if no other file has them."""
    listed = tokenizer_config.get("added_tokens_decoder")
    if isinstance(listed, dict):
        tokens: object = list(cast("dict[str, Any]", listed).values())
    else:
        tokens = (read_json(model, "tokenizer.json") or {}).get("added_tokens")
    texts = map(_text_of, cast("list[object]", tokens) if isinstance(tokens, list) else ())
    return frozenset(text for text in texts if text.strip())


def _text_of(token: object) -> str:
    text = cast("dict[str, object]", token).get("content") if isinstance(token, dict) else ""
    return text if isinstance(text, str) else ""

"""Grammar rules for arguments that are not JSON: each parameter of a tool's schema in the dialect's own form."""

from collections.abc import Callable

from pensieve.dialects.dialect import ParameterForm, Schema
from pensieve.dialects.lark import (
    Literals,
    holds,
    in_order,
    json_of,
    one_of,
    quoted,
    text_up_to,
    text_without,
)
from pensieve.dialects.values import (
    as_schema,
    is_text,
    kind_of,
    properties,
    required,
    texts_of,
    with_definitions,
)

# Nesting that is written out; what lies deeper is left to the model.
_MOST_DEPTH = 6


class Parameters:
    """Writes rules for one form. rule: takes a rule's name and body, and gives back its name."""

    def __init__(self, form: ParameterForm, literals: Literals, rule: Callable[..., str]) -> None:
        self._form = form
        self._literals = literals
        self._rule = rule

    def written(self, name: str, schema: Schema) -> str:
        """A call's arguments, in the order of the schema."""
        return self._members(name, schema, schema, 0) or '""'

    def _members(self, name: str, part: Schema, whole: Schema, depth: int) -> str:
        must = required(part)
        form = self._form
        items: list[tuple[str, bool]] = []
        for at, (key, value) in enumerate(properties(part).items()):
            head = self._literals.literal(form.before_key + key + form.after_key)
            body = self._value(f"{name}_{at}", value, whole, depth)
            items.append((self._rule(f"{name}_{at}", f"{head} {body}"), key in must))
        return in_order(items, self._literals.literal(form.separator))

    def _value(self, name: str, part: Schema, whole: Schema, depth: int) -> str:
        form = self._form
        after = self._literals.literal(form.after_value)
        if form.quote != '"' and is_text(part, whole):
            return self._text(name, part)
        if form.is_nested and kind_of(part, whole) in {"object", "array"}:
            return self._nested(name, part, whole, depth)
        value = self._rule(f"{name}_value", json_of(with_definitions(part, whole)))
        return f"{value} {after}".strip()

    def _text(self, name: str, part: Schema) -> str:
        form, literal = self._form, self._literals.literal
        end = form.quote or form.after_value
        opening = literal(form.quote or "")
        if (texts := texts_of(part)) is not None:
            return f"{opening} {one_of([quoted(text) for text in texts])} {literal(end)}".strip()
        if (closing := self._literals.from_token(end)) is not None:
            # Text takes the line break before it too.
            text = self._rule("PLAIN", text_without(holds(end.strip())))
            return f"{opening} {text} {closing}".strip()
        text = self._rule("plain", text_up_to(end), attributes="[lazy]")
        return f"{opening} {text}".strip()

    def _nested(self, name: str, part: Schema, whole: Schema, depth: int) -> str:
        """An object or a list in the dialect's own form."""
        if depth == _MOST_DEPTH:
            return '"{}"' if kind_of(part, whole) == "object" else '"[]"'
        if kind_of(part, whole) == "object":
            return f'"{{" {self._members(name, part, whole, depth + 1)} "}}"'
        item = self._value(f"{name}_item", as_schema(part.get("items")), whole, depth + 1)
        separator = self._literals.literal(self._form.separator)
        item = self._rule(f"{name}_item", item)
        return f'"[" ({item} ({separator} {item})*)? "]"'

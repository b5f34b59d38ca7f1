"""Write grammar rules for arguments that are not JSON: each parameter in the dialect's own form."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import cast

from pensieve.dialects.dialect import ParameterForm, Schema
from pensieve.dialects.format_calls import format_json
from pensieve.dialects.grammar.lark import (
    ANY,
    Literals,
    holds,
    in_order,
    json_of,
    one_of,
    pattern,
    text_up_to,
    text_without,
)
from pensieve.dialects.grammar.object_shapes import (
    KINDS,
    Shape,
    alternatives,
    either,
    kinds_of,
    listed_values,
    shapes_of,
    target,
)
from pensieve.dialects.grammar.schema_types import as_schema, values_in, with_definitions
from pensieve.dialects.grammar.tagged_values import TaggedValue, tagged_values_of
from pensieve.dialects.grammar.text_limits import (
    LIMITS,
    json_length_limit,
    length_limit,
    pattern_limit,
)
from pensieve.dialects.parameter_names import name_pattern, written_name

_OF_NUMBERS = (*("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),)
# Kinds of limited texts per tool; limits of further ones are ignored.
_MAX_LIMITED = 4
_SCALARS = {"number", "boolean", "null"}


class Parameters:
    """Writes rules for one tool. rule: adds a rule with a name and body, and returns its name."""

    def __init__(
        self, form: ParameterForm, literals: Literals, rule: Callable[..., str], schema: Schema
    ) -> None:
        self._form = form
        self._literals = literals
        self._rule = rule
        self._whole = schema
        self._slots = tagged_values_of(schema, form)
        self._references: dict[str, str] = {}
        self._limited: set[str] = set()

    def written(self, name: str) -> str:
        """Return a call's arguments, in the order of the schema."""
        self._name = name
        return self._objects(name, self._whole, self._top_value)

    def _objects(self, name: str, part: Schema, value: "Callable[..., str]") -> str:
        """Return the content between the brackets of an object."""
        shapes = shapes_of(part, self._whole)
        bodies = [
            self._members(f"{name}_s{at}" if at else name, shape, value) or '""'
            for at, shape in enumerate(shapes)
        ]
        return one_of(bodies)

    def _members(self, name: str, shape: Shape, value: "Callable[..., str]") -> str:
        separator = self._literals.literal(self._form.separator)
        items: list[tuple[str, bool]] = []
        for at, (key, part) in enumerate(shape.properties.items()):
            head = self._head(key)
            body = value(f"{name}_{at}", key, part)
            items.append((self._rule(f"{name}_{at}", f"{head} {body}"), key in shape.required))
        if (extra := shape.extra) is not None:
            others = self._others(shape, value)
            body = value(f"{name}_more", None, extra)
            head = self._any_head(name, (*shape.properties, *others))
            rules = [self._rule(f"{name}_more", f"{head} {body}")]
            for at, key in enumerate(others):
                body = f"{self._head(key)} {value(f'{name}_other{at}', key, extra)}"
                rules.append(self._rule(f"{name}_other{at}", body))
            extra_item = one_of(rules)
            items.append((f"{extra_item} ({f'{separator} {extra_item}'.strip()})*", False))
        return in_order(items, separator)

    def _others(self, shape: Shape, value: "Callable[..., str]") -> list[str]:
        """Return the further parameters of `shape` that another shape lists.

        Between tags each gets the same value in all shapes: where one has a text and another has
        JSON, the lexer would take all of either for text.
        """
        if self._form.quote is not None or value != self._top_value:
            return []
        return [key for key in self._slots.listed if key not in shape.properties]

    def _head(self, key: str) -> str:
        form = self._form
        return self._literals.around(form.before_key, written_name(form, key), form.after_key)

    def _any_head(self, name: str, listed: Sequence[str]) -> str:
        """Return any parameter name that is not `listed`, as one terminal with its marks."""
        form = self._form
        first, start, end, last = self._literals.edges(form.before_key, form.after_key)
        own = f"/{pattern(start)}{name_pattern(form)}{pattern(end)}/"
        listed_patterns = [pattern(start + written_name(form, key) + end) for key in listed]
        terminal = f"{own} & ~/({'|'.join(listed_patterns)})/" if listed_patterns else own
        return f"{first} {self._rule(f'{name}_name'.upper(), terminal)} {last}".strip()

    def _top_value(self, name: str, key: str | None, part: Schema) -> str:
        if self._form.quote is None:
            slot = self._slots.further if key is None else self._slots.of(key)
            return self._between_tags(name, slot)
        return self._inner_value(name, key, part)

    def _inner_value(self, name: str, _: str | None, part: Schema) -> str:
        return self._nested(name, part) if self._form.is_nested else self._json(name, part)

    def _json(self, name: str, part: Schema) -> str:
        return self._rule(f"{name}_value", json_of(with_definitions(part, self._whole)))

    # Between tags.

    def _between_tags(self, name: str, slot: TaggedValue) -> str:
        after = self._form.after_value
        if slot.is_value:
            return f"{self._json(name, slot.part)} {self._literals.literal(after)}"
        bodies: list[str] = []
        choices = list(alternatives(slot.part, slot.whole))
        if not choices:  # nothing is valid, which the compiler says
            return self._json(name, slot.part)
        for at, choice in enumerate(choices):
            values = listed_values(choice)
            if values is None and "string" in kinds_of(choice, slot.whole):
                is_alone = slot.is_text and len(choices) == 1
                return self._text("", after, choice if is_alone else {})
            if values is None:
                value = self._json(f"{name}_c{at}", choice)
                bodies.append(f"{value} {self._literals.literal(after)}")
            else:
                texts = map(slot.written, values)
                bodies += [self._literals.around("", text, after) for text in texts]
        return one_of(bodies)

    def _text(self, opening: str, end: str, part: Schema) -> str:
        """Return a text of the schema `part`, and the mark that ends it."""
        is_tagged = self._form.quote is None
        by_pattern = pattern_limit(part, self._form.text_end if is_tagged else "")
        limits = [one for one in (length_limit(part), by_pattern) if one is not None]
        if not limits or len(self._limited | {repr(limits)}) > _MAX_LIMITED:
            return self._limited_text(opening, end, "", [])
        self._limited.add(repr(limits))
        name = f"_{sha256(repr(limits).encode()).hexdigest()[:12]}"
        plain = self._limited_text(opening, end, name, limits)
        if by_pattern is not None or not is_tagged:
            return plain
        # Only a JSON text can contain the mark, escaped.
        escaped = [json_length_limit(part), holds(f"\\u{ord(end.strip()[0]):04x}")]
        return one_of([plain, self._limited_text(opening, end, f"{name}_json", escaped)])

    def _limited_text(self, opening: str, end: str, name: str, limits: Sequence[str]) -> str:
        opening = self._literals.literal(opening)
        if (closing := self._literals.from_token(end)) is not None:
            # The text also matches the line break before the mark.
            before = f"({pattern(end[: len(end) - len(end.lstrip())])})?"
            limit_patterns = [f"/{one}{before}/" for one in limits]
            body = " & ".join([text_without(holds(end.strip())), *limit_patterns])
            return f"{opening} {self._rule(f'PLAIN{name}'.upper(), body)} {closing}".strip()
        limit_patterns = [f"/{one}{pattern(end)}/" for one in limits]
        # Without this, a text that is too short could continue past the first mark.
        once = [f"~/{ANY}{pattern(end)}(?s:.+)/"] if limits else []
        body = " & ".join([_up_to_mark(end), *once, *limit_patterns])
        return f"{opening} {self._rule(f'plain{name}', body, attributes='[lazy]')}".strip()

    # In a form that nests.

    def _nested(self, name: str, part: Schema) -> str:
        if set(part) == {"$ref"}:
            return self._referred(cast("str", part["$ref"]))
        if set(part) in ({"anyOf"}, {"oneOf"}):
            choices = values_in(part.get("anyOf", part.get("oneOf")))
            bodies = [
                self._nested(f"{name}_c{at}", as_schema(one)) for at, one in enumerate(choices)
            ]
            return one_of(bodies)
        if (values := listed_values(part)) is not None:
            return one_of([self._constant(value) for value in values])
        kinds = kinds_of(part, self._whole)
        if kinds == KINDS and not part.keys() & {"properties", "items", "additionalProperties"}:
            return self._anything()
        return one_of(list(self._kinds(name, part, kinds)))

    def _kinds(self, name: str, part: Schema, kinds: frozenset[str]) -> Iterator[str]:
        quote = self._form.quote or ""
        if "string" in kinds:
            yield self._text(quote, quote, part)
            # Only a JSON text can contain the mark.
            limits = {key: part[key] for key in LIMITS if key in part}
            rule = f"{name}_text" if limits else "json_text"
            yield self._rule(rule, json_of({"type": "string", **limits}))
        if "object" in kinds:
            yield f'"{{" {self._objects(name, part, self._inner_value)} "}}"'
        if "array" in kinds:
            first = values_in(part.get("prefixItems"))
            item = either([as_schema(one) for one in (*first, part.get("items"))])
            yield self._list(self._rule(f"{name}_item", self._nested(f"{name}_item", item)))
        if scalars := sorted(kinds & _SCALARS):
            limits = {key: part[key] for key in _OF_NUMBERS if key in part}
            yield self._json(name, {"type": _with_integers(scalars, part), **limits})

    def _list(self, item: str) -> str:
        return f'"[" ({item} ({self._literals.literal(self._form.separator)} {item})*)? "]"'

    def _referred(self, reference: str) -> str:
        """Return a separate rule for a definition, which may contain itself."""
        if reference not in self._references:
            name = f"{self._name}_ref{len(self._references)}"
            self._references[reference] = name
            self._rule(name, self._nested(name + "_", target(reference, self._whole) or {}))
        return self._references[reference]

    def _anything(self) -> str:
        name = f"{self._name}_any"
        if "" not in self._references:
            self._references[""] = name
            kinds = self._kinds(name, {"type": sorted(KINDS), "items": {"$ref": ""}}, KINDS)
            self._rule(name, one_of(list(kinds)))
        return name

    def _constant(self, value: object) -> str:
        """Return exactly this value."""
        quote = self._form.quote or ""
        match value:
            case str() if quote in value:
                return self._literals.around("", format_json(value), "")
            case str():
                return self._literals.around(quote, value, quote)
            case Mapping():
                items = cast("Mapping[str, object]", value).items()
                return self._in_brackets(
                    "{}", [f"{self._head(key)} {self._constant(one)}" for key, one in items]
                )
            case list():
                return self._in_brackets(
                    "[]", [self._constant(one) for one in cast("list[object]", value)]
                )
            case _:
                return self._literals.literal(format_json(value))

    def _in_brackets(self, brackets: str, items: Sequence[str]) -> str:
        inner = f" {self._literals.literal(self._form.separator)} ".join(items)
        return f'"{brackets[0]}" {inner} "{brackets[1]}"'


def _up_to_mark(end: str) -> str:
    """Return text up to the first mark in `end`, where the parser ends, whatever surrounds it."""
    mark, after = end.strip(), end[len(end.rstrip()) :]
    excluded = [f"{ANY}{pattern(mark)}[^{pattern(after[0])}]{ANY}"] if after else []
    return text_up_to(mark + after, *excluded)


def _with_integers(kinds: Sequence[str], part: Schema) -> list[str]:
    """Replace numbers by integers if the schema admits no others."""
    named = values_in(part.get("type"))
    is_whole = "integer" in named and "number" not in named
    return ["integer" if kind == "number" and is_whole else kind for kind in kinds]

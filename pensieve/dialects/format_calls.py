"""Format calls of earlier turns in a dialect, exactly as its grammar constrains new ones."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pensieve.dialects.dialect import CallForm, ParameterForm, ToolCall
from pensieve.dialects.grammar.tagged_values import TaggedValue, TaggedValues
from pensieve.dialects.parameter_names import written_name

_TEXT = {"type": "string"}

# Marks a text so that `ChatTokenizer.encode` reads no control token in it.
Neutralize = Callable[[str], str]


def format_calls(
    form: CallForm,
    calls: Sequence[ToolCall],
    neutralize: Neutralize = str,
    slots: Mapping[str, TaggedValues] | None = None,
) -> str:
    """Return consecutive calls of an assistant as text.

    neutralize: applied to all but the form's own marks. slots: by tool name, how values are written
    between tags; without them texts are written as if every parameter were a text.
    """
    writer = _Writer(form, neutralize, slots or {})
    texts = [writer.call(call, index) for index, call in enumerate(calls)]
    if form.separator is not None:
        return writer.section(form.separator.join(texts))
    return form.between.join(map(writer.section, texts))


@dataclass(frozen=True, slots=True)
class _Writer:
    form: CallForm
    neutralize: Neutralize
    slots: Mapping[str, TaggedValues]

    def section(self, calls: str) -> str:
        form = self.form
        return form.opening + form.inside[0] + calls + form.inside[1] + form.closing

    def call(self, call: ToolCall, index: int) -> str:
        form = self.form
        if form.parameters is None:
            arguments = self.neutralize(format_json(call.arguments))
        else:
            arguments = self._parameters(form.parameters, call)
        after_name = form.after_name.replace("{index}", str(index))
        after = form.after_arguments
        if call.id:
            after_name, after = (part.replace("{id}", call.id) for part in (after_name, after))
        return form.before_name + self.neutralize(call.name) + after_name + arguments + after

    def _parameters(self, form: ParameterForm, call: ToolCall) -> str:
        slots = self.slots.get(call.name)
        return form.separator.join(
            form.before_key
            + self._key(form, key)
            + form.after_key
            + (
                self._value(form, value)
                if slots is None
                else self._in_slot(form, slots.of(key), value)
            )
            + form.after_value
            for key, value in call.arguments.items()
        )

    def _key(self, form: ParameterForm, key: str) -> str:
        return self.neutralize(written_name(form, key))

    def _in_slot(self, form: ParameterForm, slot: TaggedValue, value: object) -> str:
        is_free = form.quote is None and not slot.is_value
        return self.neutralize(slot.written(value)) if is_free else self._value(form, value)

    def _value(self, form: ParameterForm, value: object) -> str:
        match value:
            case str():
                return self._text(form, value)
            case dict() if form.is_nested:
                items = cast("dict[str, object]", value).items()
                inner = (f"{self._key(form, key)}:{self._value(form, item)}" for key, item in items)
                return f"{{{','.join(inner)}}}"
            case list() if form.is_nested:
                inner = (self._value(form, item) for item in cast("list[object]", value))
                return f"[{','.join(inner)}]"
            case _:
                return self.neutralize(format_json(value))

    def _text(self, form: ParameterForm, text: str) -> str:
        if form.quote is None:
            return self.neutralize(TaggedValue(_TEXT, _TEXT, form.text_end).written(text))
        if form.quote == '"' or form.quote in text:
            return self.neutralize(format_json(text))
        return form.quote + self.neutralize(text) + form.quote


def template_arguments(
    form: ParameterForm | None, arguments: Mapping[str, object], slots: TaggedValues | None
) -> Mapping[str, object]:
    """Return a call's arguments for a chat template that writes them, as the model writes them."""
    if form is None:
        return arguments
    named = {written_name(form, key): value for key, value in arguments.items()}
    if form.is_nested:
        return {key: _renamed(form, value) for key, value in named.items()}
    if form.quote is not None or slots is None:
        return named
    return {
        written: value if (slot := slots.of(key)).is_value else slot.written(value)
        for (key, value), written in zip(arguments.items(), named, strict=True)
    }


def _renamed(form: ParameterForm, value: object) -> object:
    match value:
        case Mapping():
            items = cast("Mapping[str, object]", value).items()
            return {written_name(form, key): _renamed(form, one) for key, one in items}
        case list():
            return [_renamed(form, one) for one in cast("list[object]", value)]
        case _:
            return value


def format_json(value: object) -> str:
    """Return JSON with the grammar's spacing, which models also use."""
    return json.dumps(value, ensure_ascii=False)


def format_minified(value: object) -> str:
    """Return JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

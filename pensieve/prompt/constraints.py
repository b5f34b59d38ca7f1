"""Derive how an answer is constrained and parsed: its format, tools and grammar.

If a tool's schema cannot be compiled to a grammar, the tool takes any JSON object, and a warning is
logged. If the client relies on the schema (`strict`, `output_config.format`), or has a grammar of
its own for the tool's input, the request is refused instead.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pensieve.api.messages.request import Conversation
from pensieve.api.messages.tools import AnyChoice, AutoChoice, NamedChoice, NoChoice
from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.dialect import Dialect, Schema, ToolSpec
from pensieve.dialects.grammar.answer_grammar import (
    MAX_CALLS,
    CallLimits,
    answer_grammar,
    tool_in_line,
)
from pensieve.dialects.grammar.regex_syntax import TextGrammarError
from pensieve.dialects.grammar.schema_simplifier import (
    FREE_OBJECT,
    Compilable,
    SchemaTooComplexError,
    compilable,
    compilable_object,
)
from pensieve.dialects.grammar.schema_types import as_schema
from pensieve.dialects.grammar.text_grammar import TextGrammar, text_grammar_of
from pensieve.dialects.grammar.text_input import check_enforceable
from pensieve.errors import InvalidRequestError
from pensieve.prompt.conversation.tools import ToolSet
from pensieve.prompt.thinking import BoundedThought, hides_thoughts

_log = logging.getLogger("pensieve.prompt")

# Line and column of an error in llguidance's messages.
_POSITION = re.compile(r"\bat (\d+)\(\d+\)")
_UNSATISFIABLE = re.compile(r"Unsatisfiable schema: (.+)")
MAX_PLACE_CHARS = 200
_INNER_ERROR = "The grammar cannot be followed: "  # before the other messages


@dataclass(frozen=True, slots=True)
class AnswerGrammar:
    dialect: Dialect
    limits: CallLimits
    controls: Mapping[str, int]  # the model's control tokens
    strict_paths: Mapping[str, str]  # path in the request of each strict tool, by its name
    # And of the client's grammar for the input of each tool that has one.
    input_paths: Mapping[str, str]
    lark: str
    is_format_strict: bool = True  # the client relies on the schema of the answer's text

    def relaxed(self, error: str) -> "AnswerGrammar | None":
        """Return the grammar without the schema that llguidance rejects; None if it has none.

        error: llguidance's message. Raises `InvalidRequestError` if the client relies on the
        schema, or the grammar has one of the client's.
        """
        if self.limits.schema is not None:
            return self._with_free_format(error)
        tools = self.limits.tools
        offenders = self._offenders(error)
        if not offenders:
            self._refuse_input_grammar(error)
            return None
        for at in offenders:
            self._refuse_if_strict(tools[at].name, error)
            _log.warning(
                "the input_schema of tool %d failed to compile, any JSON object is accepted",
                at + 1,
            )
            _log.debug("its error: %s", error)
        relaxed_tools = [
            _unconstrained(tool) if at in offenders else tool for at, tool in enumerate(tools)
        ]
        return self._with(replace(self.limits, tools=relaxed_tools))

    def _with(self, limits: CallLimits) -> "AnswerGrammar":
        lark = answer_grammar(self.dialect, limits, self.controls)
        return replace(self, limits=limits, lark=lark)

    def _offenders(self, error: str) -> list[int]:
        """Return the indices of tools whose schemas may be to blame, and can be dropped."""
        tool_index = self._tool_index(error)
        return [
            at
            for at, tool in enumerate(self.limits.tools)
            if tool.schema != FREE_OBJECT
            and tool.name not in self.limits.texts
            and (tool_index is None or at == tool_index)
        ]

    def _with_free_format(self, error: str) -> "AnswerGrammar | None":
        if self.is_format_strict:
            raise InvalidRequestError(f"output_config.format.schema: {_schema_reason(error)}")
        if self.limits.schema == FREE_OBJECT:
            self._refuse_input_grammar(error)
            return None
        _log.warning("output format failed to compile, any JSON object is accepted")
        _log.debug("its error: %s", error)
        return self._with(replace(self.limits, schema=FREE_OBJECT))

    def _tool_index(self, error: str) -> int | None:
        found = _POSITION.search(error)
        return tool_in_line(self.lark, int(found[1])) if found else None

    def _refuse_input_grammar(self, error: str) -> None:
        """Raise `InvalidRequestError` if a client's grammar would be lost."""
        if not (names := list(self.limits.texts)):
            return
        tool_index = self._tool_index(error)
        named = None if tool_index is None else self.limits.tools[tool_index].name
        name = named if named in names else names[0]
        raise _unenforceable(self.input_paths, name, _grammar_reason(error))

    def _refuse_if_strict(self, name: str, error: str) -> None:
        if name in self.strict_paths:
            path = f"{self.strict_paths[name]}.input_schema"
            raise InvalidRequestError(f"{path}: {_schema_reason(error)}")


_TOO_COMPLEX = "Schema is too complex for compilation."


def _schema_reason(error: str) -> str:
    """Return what llguidance's error says of the client's schema."""
    if found := _UNSATISFIABLE.search(error):
        # An expression is llguidance's own, made of several keywords.
        is_inner = found[1].startswith("Regex")
        return "Schema allows no value" + ("." if is_inner else f": {found[1]}")
    if "regex parse error" in error:
        return "Schema has a pattern that is no regular expression."
    return _TOO_COMPLEX


def _grammar_reason(error: str) -> str:
    """Return what llguidance's error says of the client's grammar, which it never read as such."""
    if _UNSATISFIABLE.search(error):
        return "it matches no text"
    return "it is too complex" if error.startswith(_INNER_ERROR) else error


def _unenforceable(paths: Mapping[str, str], tool: str, error: object) -> InvalidRequestError:
    """paths: of grammars in the request, by tool. One in the conversation itself has none."""
    path = paths.get(tool, "tools")
    return InvalidRequestError(f"{path}: The grammar of {tool} cannot be enforced: {error}")


@dataclass(frozen=True, slots=True)
class AnswerConstraints:
    form: AnswerFormat
    grammar: AnswerGrammar | None = None
    hides_thoughts: bool = False  # the client gets thinking blocks without text


def constrain_answer(
    conversation: Conversation,
    tool_set: ToolSet,
    dialect: Dialect,
    controls: Mapping[str, int],
    thought: BoundedThought,
) -> AnswerConstraints:
    """Return the constraints of an answer whose prompt begins it with `thought`.

    Raises `InvalidRequestError` for a strict schema that cannot be compiled.
    """
    limits = _call_limits(conversation, tool_set, thought)
    limits = replace(limits, texts=_texts(limits, dialect, tool_set.input_grammars))
    tools = {tool.name: tool.schema for tool in limits.tools}
    form = AnswerFormat(
        dialect,
        tools if limits.max_calls else {},
        is_in_thought=thought.state == "begun",
        may_think=thought.state == "possible",
        has_text=not limits.min_calls,
        max_calls=limits.max_calls,
    )
    is_limited = limits.thinking_tokens is not None and thought.state != "none"
    needs_grammar = bool(limits.tools) or limits.schema is not None or is_limited
    grammar = None
    if needs_grammar:
        simplified = [_simplified_tool(tool, tool_set.strict) for tool in limits.tools]
        limits = replace(limits, tools=simplified)
        grammar = AnswerGrammar(
            dialect,
            limits,
            controls,
            tool_set.strict,
            tool_set.input_grammars,
            answer_grammar(dialect, limits, controls),
            is_format_strict=_is_strict(conversation.output_schema),
        )
    return AnswerConstraints(form, grammar, hides_thoughts(conversation))


def _texts(
    limits: CallLimits, dialect: Dialect, paths: Mapping[str, str]
) -> Mapping[str, TextGrammar]:
    """Return the clients' grammars of callable tools, by tool.

    Raises `InvalidRequestError` for one that is invalid, or that the dialect cannot enforce.
    """
    texts: dict[str, TextGrammar] = {}
    for tool in limits.tools if limits.max_calls else ():
        if tool.input_grammar is None:
            continue
        try:
            texts[tool.name] = text_grammar_of(tool.input_grammar)
            check_enforceable(texts[tool.name], dialect.calls.parameters)
        except TextGrammarError as error:
            raise _unenforceable(paths, tool.name, error) from None
    return texts


def _call_limits(
    conversation: Conversation, tool_set: ToolSet, thought: BoundedThought
) -> CallLimits:
    tools = list(tool_set.callable.values())
    schema = None
    if (output_format := conversation.output_schema) is not None:
        schema = json_schema_of(output_format)
    min_calls, max_calls = 0, MAX_CALLS
    match conversation.tool_choice:
        case None:
            pass
        case NoChoice():
            max_calls = 0
        case AutoChoice(allowed=allowed, disable_parallel_tool_use=is_single):
            tools = _allowed(tools, allowed)
            max_calls = 1 if is_single else MAX_CALLS
        case AnyChoice(allowed=allowed, disable_parallel_tool_use=is_single):
            tools = _allowed(tools, allowed)
            min_calls, max_calls = 1, 1 if is_single else MAX_CALLS
        case NamedChoice(name=name):
            min_calls, max_calls = 1, 1
            tools = [tool_set.declared[name]] if name in tool_set.declared else []
    return CallLimits(
        tools=tools,
        min_calls=min_calls,
        max_calls=max_calls,
        schema=None
        if min_calls or schema is None
        else _simplified_output(schema, is_strict=_is_strict(output_format)),
        thought=thought.state,
        thinking_tokens=thought.max_tokens,
    )


def _allowed(tools: list[ToolSpec], names: Iterable[str] | None) -> list[ToolSpec]:
    return tools if names is None else [tool for tool in tools if tool.name in set(names)]


def json_schema_of(output_format: object) -> Schema:
    """Return the schema of the answer's text.

    Raises `InvalidRequestError` for an output format other than JSON Schema.
    """
    fields = as_schema(output_format)
    if fields.get("type") != "json_schema":
        raise InvalidRequestError("output_config.format.type: Input should be 'json_schema'")
    if not isinstance(fields.get("schema"), Mapping):
        raise InvalidRequestError("output_config.format.schema: Input should be an object")
    return as_schema(fields["schema"])


def _is_strict(output_format: object) -> bool:
    """Return whether the client relies on the schema. Only OpenAI's API has formats that say no."""
    return as_schema(output_format).get("strict") is not False


def _simplified_output(schema: Schema, *, is_strict: bool) -> Schema:
    path = "output_config.format.schema"
    try:
        fit = compilable(schema)
    except SchemaTooComplexError:
        if is_strict:
            raise InvalidRequestError(f"{path}: {_TOO_COMPLEX}") from None
        _log.warning("output format is too complex, any JSON object is accepted")
        return FREE_OBJECT
    if is_strict:
        _refuse_dropped(fit, path)
    return fit.schema


def _simplified_tool(tool: ToolSpec, strict_paths: Mapping[str, str]) -> ToolSpec:
    path = strict_paths.get(tool.name)
    try:
        fit = compilable_object(tool.schema)
    except SchemaTooComplexError:
        if path is not None:
            raise InvalidRequestError(f"{path}.input_schema: {_TOO_COMPLEX}") from None
        _log.warning("the input_schema of a tool is too complex, any JSON object is accepted")
        return _unconstrained(tool)
    if path is not None:
        _refuse_dropped(fit, path)
    return replace(tool, schema=fit.schema)


def _unconstrained(tool: ToolSpec) -> ToolSpec:
    return replace(tool, schema=FREE_OBJECT)


def _refuse_dropped(fit: Compilable, path: str) -> None:
    if fit.dropped:
        kind = fit.schema.get("type", "object")
        raise InvalidRequestError(
            f"{path}: For '{kind}' type, properties {_joined(fit.dropped)} are not supported"
        )


def _joined(places: Mapping[str, str]) -> str:
    """Return the keywords, each with a place in the schema if that is not the top."""
    return ", ".join(
        f"{keyword} (at {place[:MAX_PLACE_CHARS]})" if place else keyword
        for keyword, place in sorted(places.items())
    )

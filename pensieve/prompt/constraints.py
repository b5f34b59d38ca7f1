"""What is asked of an answer and how it is read: the dialect, the tools that may be called, the grammar that holds it to them.

A schema that no grammar can be made of is not held to: its tool takes any JSON object then, which the log tells. Where the
client was promised that it is held to (`strict`, `output_config.format`), the request is refused instead.
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
from pensieve.dialects.grammar.schema_simplifier import (
    FREE_OBJECT,
    Compilable,
    SchemaTooComplexError,
    compilable,
    compilable_object,
)
from pensieve.dialects.grammar.schema_types import as_schema
from pensieve.errors import InvalidRequestError
from pensieve.prompt.conversation.tools import ToolSet
from pensieve.prompt.thinking import BoundedThought, hides_thoughts

_log = logging.getLogger("pensieve.prompt")

# Where llguidance says that something is wrong: line and column.
_PLACE = re.compile(r"\bat (\d+)\(\d+\)")


@dataclass(frozen=True, slots=True)
class AnswerGrammar:
    """The grammar of one answer. controls: the model's control tokens. promised: where each strict tool stands in the request."""

    dialect: Dialect
    wanted: CallLimits
    controls: Mapping[str, int]
    promised: Mapping[str, str]
    lark: str

    def relaxed(self, complaint: str) -> "AnswerGrammar | None":
        """Without the schema that the engine complains of; None where there is nothing left to leave out.

        Raises `InvalidRequestError` where the client was promised that the schema is held to.
        """
        if self.wanted.schema is not None:
            raise InvalidRequestError(f"output_config.format.schema: {_TOO_COMPLEX}")
        tools = self.wanted.tools
        found = _PLACE.search(complaint)
        named = tool_in_line(self.lark, int(found[1])) if found else None
        offenders = [
            at
            for at, tool in enumerate(tools)
            if tool.schema != FREE_OBJECT and (named is None or at == named)
        ]
        if not offenders:
            return None
        for at in offenders:
            self._refuse_promised(tools[at].name)
            _log.warning(
                "tool %s: no grammar can be made of its input_schema, any JSON object will do: %s",
                tools[at].name,
                complaint,
            )
        free = [_freed(tool) if at in offenders else tool for at, tool in enumerate(tools)]
        return _grammar(
            self.dialect, replace(self.wanted, tools=free), self.controls, self.promised
        )

    def _refuse_promised(self, name: str) -> None:
        if name in self.promised:
            raise InvalidRequestError(f"{self.promised[name]}.input_schema: {_TOO_COMPLEX}")


_TOO_COMPLEX = "Schema is too complex for compilation."


@dataclass(frozen=True, slots=True)
class AnswerConstraints:
    """form: how the answer is read. hides_thoughts: from the client."""

    form: AnswerFormat
    grammar: AnswerGrammar | None = None
    hides_thoughts: bool = False


def constrain_answer(
    conversation: Conversation,
    offer: ToolSet,
    dialect: Dialect,
    controls: Mapping[str, int],
    thought: BoundedThought,
) -> AnswerConstraints:
    """The plan for an answer to a conversation whose prompt begins it with `thought`.

    Raises `InvalidRequestError` for a schema that cannot be held to although that was promised.
    """
    wanted = _wanted(conversation, offer, thought)
    tools = {tool.name: tool.schema for tool in wanted.tools}
    form = AnswerFormat(
        dialect,
        tools if wanted.max_calls else {},
        is_in_thought=thought.state == "begun",
        may_think=thought.state == "possible",
        has_text=not wanted.min_calls,
        max_calls=wanted.max_calls,
    )
    is_limited = wanted.thinking_tokens is not None and thought.state != "none"
    needs_grammar = bool(wanted.tools) or wanted.schema is not None or is_limited
    grammar = None
    if needs_grammar:
        fitting = [_fitting(tool, offer.strict) for tool in wanted.tools]
        wanted = replace(wanted, tools=fitting)
        grammar = _grammar(dialect, wanted, controls, offer.strict)
    return AnswerConstraints(form, grammar, hides_thoughts(conversation))


def _grammar(
    dialect: Dialect, wanted: CallLimits, controls: Mapping[str, int], promised: Mapping[str, str]
) -> AnswerGrammar:
    lark = answer_grammar(dialect, wanted, controls)
    return AnswerGrammar(dialect, wanted, controls, promised, lark)


def _wanted(conversation: Conversation, offer: ToolSet, thought: BoundedThought) -> CallLimits:
    tools = list(offer.callable.values())
    schema = output_schema(conversation)
    least, most = 0, MAX_CALLS
    match conversation.tool_choice:
        case None:
            pass
        case NoChoice():
            most = 0
        case AutoChoice(disable_parallel_tool_use=is_single):
            most = 1 if is_single else MAX_CALLS
        case AnyChoice(disable_parallel_tool_use=is_single):
            least, most = 1, 1 if is_single else MAX_CALLS
        case NamedChoice(name=name):
            least, most = 1, 1
            tools = [offer.held[name]] if name in offer.held else []
    return CallLimits(
        tools=tools,
        min_calls=least,
        max_calls=most,
        schema=None if least or schema is None else _fitting_output(schema),
        thought=thought.state,
        thinking_tokens=thought.max_tokens,
    )


def output_schema(conversation: Conversation) -> Schema | None:
    """The schema that the answer's text must obey. Raises `InvalidRequestError` for a form of any other kind."""
    form = conversation.output_schema
    if form is None:
        return None
    fields = as_schema(form)
    if fields.get("type") != "json_schema":
        raise InvalidRequestError("output_config.format.type: Input should be 'json_schema'")
    if not isinstance(fields.get("schema"), Mapping):
        raise InvalidRequestError("output_config.format.schema: Input should be an object")
    return as_schema(fields["schema"])


def _fitting_output(schema: Schema) -> Schema:
    path = "output_config.format.schema"
    try:
        fit = compilable(schema)
    except SchemaTooComplexError:
        raise InvalidRequestError(f"{path}: {_TOO_COMPLEX}") from None
    _refuse_lost(fit, path)
    return fit.schema


def _fitting(tool: ToolSpec, promised: Mapping[str, str]) -> ToolSpec:
    path = promised.get(tool.name)
    try:
        fit = compilable_object(tool.schema)
    except SchemaTooComplexError:
        if path is not None:
            raise InvalidRequestError(f"{path}.input_schema: {_TOO_COMPLEX}") from None
        _log.warning("tool %s: its input_schema is too complex, any JSON object will do", tool.name)
        return _freed(tool)
    if path is not None:
        _refuse_lost(fit, path)
    return replace(tool, schema=fit.schema)


def _freed(tool: ToolSpec) -> ToolSpec:
    return replace(tool, schema=FREE_OBJECT)


def _refuse_lost(fit: Compilable, path: str) -> None:
    if fit.dropped:
        kind = fit.schema.get("type", "object")
        raise InvalidRequestError(
            f"{path}: For '{kind}' type, properties {_listed(fit.dropped)} are not supported"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))

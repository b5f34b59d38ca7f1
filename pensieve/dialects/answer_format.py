"""How one answer is written and to be read: the dialect, the tools at hand, whether it begins in a thought."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pensieve.dialects.dialect import Dialect, Schema
from pensieve.dialects.grammar.answer_grammar import MAX_CALLS


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """tools: the schemas of those that may be called, by name. is_in_thought: the prompt has opened a thought.

    may_think: there may be a thought. After a prefill there is none: the answer has begun. has_text: beside calls there may be text.
    """

    dialect: Dialect
    tools: Mapping[str, Schema] = field(default_factory=dict[str, Schema])
    is_in_thought: bool = False
    may_think: bool = True
    has_text: bool = True
    max_calls: int = MAX_CALLS
